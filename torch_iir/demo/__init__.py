"""What `python -m torch_iir.demo` runs: one module per demo, each with a function `run(file, out)`."""


class DemoError(Exception):
    """What the user can put right; its sentence is all that is shown."""
