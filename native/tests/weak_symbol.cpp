// An inline function that is not inlined: what check_symbols.cmake has to find.
[[gnu::noinline]] inline int weak_function(int x) { return x * x + 1; }

int use(int x) { return weak_function(x) + weak_function(x + 1); }
