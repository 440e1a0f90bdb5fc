"""SparK's pre-training: a sparse encoder in the published names, with a decoder of its own."""

from convert.formats.official import ENCODER
from convert.rules import Format, Part

SPARK = Format(
    "spark",
    sign=r"(sparse_encoder\.)?sp_cnn\..*",
    rules=ENCODER,
    trunks=("sparse_encoder.sp_cnn.", "sp_cnn."),
    trunk=lambda model, head: "sparse_encoder.sp_cnn.",
    parts=(
        Part(
            r"(dense_decoder|densify_norms|densify_projs|mask_tokens)\..*",
            "SparK's decoder, with its statistics of BatchNorm",
        ),
        Part(r"imn_m|imn_s|norm_black", "constants that SparK does not use"),
    ),
)
