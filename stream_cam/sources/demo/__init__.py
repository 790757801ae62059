"""A synthetic camera: drawn scenes whose true shapes and boxes are known, or photographs."""
