"""A bundle: a portfolio's networks with everything that is needed to use and to judge them.

A folder, or a .zip file, that holds at its top and nowhere else

    network-1.safetensors   the weights of each network of the average; network-2.onnx of one that is ONNX
    fusion.safetensors      weights of the networks for each pixel (where there are some)
    README.md               the model card, for people
    picture.png             a part of a validation image: LR, bicubic, the average, HR (where there is one)
    LICENSE                 the text of the licence (where there is one)
    manifest.json           for programs: architectures, checksums, provenance
    SHA256SUMS              of all of the above, as `sha256sum --check` reads it

Nothing in it is ever unpickled, extracted or run.
"""

from gpnas.bundle.licensing import known_licence as known_licence
from gpnas.bundle.licensing import read_licence as read_licence
from gpnas.bundle.manifest import Manifest as Manifest
from gpnas.bundle.manifest import NetworkSource as NetworkSource
from gpnas.bundle.manifest import manifest_schema as manifest_schema
from gpnas.bundle.member import Bundle as Bundle
from gpnas.bundle.member import Description as Description
from gpnas.bundle.member import Licence as Licence
from gpnas.bundle.member import Member as Member
from gpnas.bundle.member import Picture as Picture
from gpnas.bundle.member import StoredFusion as StoredFusion
from gpnas.bundle.reading import read_bundle as read_bundle
from gpnas.bundle.weights import Graph as Graph
from gpnas.bundle.weights import StoredWeights as StoredWeights
from gpnas.bundle.writing import write_bundle as write_bundle
