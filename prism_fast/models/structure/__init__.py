"""Networks that are more than a timm name: cut, narrowed, or ending in another network's classifier."""
