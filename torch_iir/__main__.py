"""``python -m torch_iir`` prints what ``python -m torch_iir_native`` does, and facts about torch, which it imports."""

from torch_iir_native.__main__ import main

from torch_iir import build_info

if __name__ == "__main__":
    main("torch_iir", build_info)
