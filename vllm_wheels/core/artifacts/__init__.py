"""One package per kind of artifact; each exports its rule."""
