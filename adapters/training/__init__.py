"""From sessions and knowledge to trained experts and their router."""
