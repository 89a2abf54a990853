"""Cases that are tried one after the other: every one is tried, and all failures are told."""

import sys
import time


class Cases(list):
    """Functions of one argument, the scene that they share. As a decorator it adds one."""

    def __call__(self, function):
        self.append(function)
        return function

    def run(self, scene, names=()):
        """Tries those of these names, or all; ends the program with what failed."""
        unknown = set(names) - {function.__name__ for function in self}
        assert not unknown, f"no such case: {', '.join(sorted(unknown))}"
        failures = 0
        for function in self:
            if names and function.__name__ not in names:
                continue
            started = time.monotonic()
            try:
                function(scene)
                print(f"held: {function.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
            except Exception as error:
                failures += 1
                print(f"FAILED: {function.__name__}: {type(error).__name__}: {error}", flush=True)
        if failures:
            sys.exit(f"{failures} cases failed")
