"""How it runs: stages, the loop, real elastix, what is written, and register() over all of them."""
