"""Turn a torch module, or the gradient of one, into something fast; store it; run it."""
