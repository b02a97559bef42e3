"""The networks, one file each, and the layers that they share.

Layers are named as in the official code of each, so that published weights load unchanged and ours open in
other tools; DRN alone has none.

Shapes: B images, F features, h×w LR pixels, s scale.
"""
