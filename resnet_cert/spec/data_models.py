"""The models of `data`: a finite distribution of (x, y), in its five forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, Tag

from resnet_cert.spec.entries import (
    ColumnOrColumns,
    Compared,
    Labels,
    MatrixOrFile,
    TargetsOrFile,
    VectorOrFile,
)
from resnet_cert.spec.section import Section, chosen_by, meant
from resnet_cert.spec.values import (
    ArrayName,
    Column,
    Count,
    CsvTable,
    Delimiter,
    Flag,
    NonNegative,
    NpzTable,
    OneOf,
    Seed,
    Text,
)


def _inputs() -> Iterable[str]:
    from resnet_cert.spec.sampling import INPUTS

    return INPUTS


def _teachers() -> Iterable[str]:
    from resnet_cert.spec.sampling import TEACHERS

    return TEACHERS


class ArrayData(Section):
    """What data given as arrays or columns have in common."""

    normalise: Flag = Field(default=False, description="Divide the probabilities by their sum")
    labels: Labels | None = Field(
        default=None, description="The numbers that the labels in y stand for, such as {no: -1, yes: 1}"
    )
    compare: Compared | None = Field(
        default=None,
        description="Further inputs by name, the best linear predictors on which are compared: an array, or "
        "a list of arrays (CSV: columns) side by side; x, f and bypass are the data's own",
    )


class InlineData(ArrayData):
    """Samples in the spec itself, or each array in a .npy file."""

    form = "data given as arrays"
    x: MatrixOrFile = Field(description="n rows of d inputs, or a .npy file of shape (n, d)")
    y: TargetsOrFile = Field(
        description="n targets; with several outputs n rows of q, or n labels 0..q−1; or a .npy file"
    )
    f: MatrixOrFile | None = Field(
        default=None, description="n rows of k features, for network: {kind: given}; or a .npy file"
    )
    bypass: MatrixOrFile | None = Field(
        default=None, description="n rows of inputs that the head reads beside x + Vf; or a .npy file"
    )
    probabilities: VectorOrFile | None = Field(
        default=None, description="n positive weights of sum 1, or a .npy file; uniform by default"
    )
    omega: MatrixOrFile | None = Field(
        default=None,
        description="n rows of q weights ≥ 0 of the outputs, for a weighted loss; or a .npy file",
    )


class CsvData(ArrayData):
    """Columns of a CSV file with a header."""

    form = "data from a CSV file"
    file: CsvTable = Field(description="A CSV file, relative to the folder of the spec")
    x: list[Column] = Field(min_length=1, description="The columns of the inputs")
    y: ColumnOrColumns = Field(
        description="The column of the targets; with several outputs a list of columns, or that of the labels"
    )
    f: list[Column] | None = Field(
        default=None, min_length=1, description="The columns of the features, for network: {kind: given}"
    )
    bypass: list[Column] | None = Field(
        default=None, min_length=1, description="The columns that the head reads beside x + Vf"
    )
    probabilities: Column | None = Field(
        default=None, description="The column of the probabilities; uniform by default"
    )
    omega: list[Column] | None = Field(
        default=None, min_length=1, description="The columns of the weights ≥ 0, for a weighted loss"
    )
    delimiter: Delimiter = Field(default="comma", description="What separates the columns")


class NpzData(ArrayData):
    """Arrays of a .npz or .safetensors file."""

    form = "data from a .npz file"
    file: NpzTable = Field(description="A .npz or .safetensors file, relative to the folder of the spec")
    x: ArrayName = Field(default="x", description="The array (n, d) of the inputs")
    y: ArrayName = Field(
        default="y",
        description="The array (n,) of the targets; with several outputs (n, q), or (n,) labels",
    )
    f: ArrayName | None = Field(
        default=None,
        description='The array (n, k) of the features, for network: {kind: given}; "f" by default',
    )
    bypass: ArrayName | None = Field(
        default=None, description="The array (n, d2) of inputs that the head reads beside x + Vf"
    )
    probabilities: ArrayName | None = Field(
        default=None, description="The array (n,) of the probabilities; uniform by default"
    )
    omega: ArrayName | None = Field(
        default=None,
        description='The array (n, q) of the weights ≥ 0, for a weighted loss; "omega" by default',
    )


class ShardData(ArrayData):
    """Arrays in many .npz or .parquet files, or folders of .npy files, read one after the other by name."""

    form = "data from shards"
    shards: Text = Field(
        description="A pattern such as data/*.npz or data/**/*.parquet, or a folder, relative to the spec's"
    )
    x: ColumnOrColumns = Field(
        default="x", description="The array (n, d) of the inputs, or a list of columns, even of one"
    )
    y: ColumnOrColumns = Field(default="y", description="The array of the targets, or a list of columns")
    f: ColumnOrColumns | None = Field(
        default=None,
        description='The array (n, k) of the features, for network: {kind: given}; "f" by default',
    )
    bypass: ColumnOrColumns | None = Field(
        default=None, description="The inputs (n, d2) that the head reads beside x + Vf"
    )
    probabilities: ArrayName | None = Field(
        default=None, description="The array (n,) of the probabilities; uniform by default"
    )
    omega: ColumnOrColumns | None = Field(
        default=None, description='The weights (n, q) ≥ 0, for a weighted loss; "omega" by default'
    )


class Teacher(Section):
    """Targets from t = uᵀx, u uniform on the unit sphere of R^d, and e = noise·z, z standard normal."""

    teacher: Annotated[str, OneOf("teacher", _teachers)] = Field(
        description="linear: t + e; relu: max(t, 0) + e; constant: 1 + e; sign: the sign ±1 of t + e; "
        "logistic: ±1, +1 with probability 1/(1 + exp(−(t + e))); poisson: of mean exp(min(t + e, 30))"
    )
    noise: NonNegative = Field(default=0.0, description="The standard deviation of e")


class Sample(Section):
    """Samples drawn by NumPy's PCG64 in the order u, x, e, y."""

    n: Count = Field(description="Number of samples")
    d: Count = Field(description="Dimension of x")
    x: Annotated[str, OneOf("distribution of x", _inputs)] = Field(
        default="gaussian",
        description="gaussian: standard normal; uniform: on [−1, 1]^d; sphere: uniform on the unit sphere; "
        "rademacher: independent signs ±1",
    )
    y: Teacher
    seed: Seed = Field(default=0, description="Seed of the generator: the same seed draws the same samples")


class SampleData(Section):
    """A sample drawn from a distribution; the check is then exact for the drawn sample."""

    form = "data drawn from a distribution"
    sample: Sample


_DATA_FORMS = (InlineData, CsvData, NpzData, ShardData, SampleData)


def _data_form(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    keys = meant(value, *_DATA_FORMS)
    if "sample" in keys:
        return SampleData.form
    if "shards" in keys:
        return ShardData.form
    if "file" not in keys:
        return InlineData.form
    file = str(value.get("file")).lower()
    arrays = file.endswith((".npz", ".safetensors"))
    table = file.endswith(".csv") or (not arrays and isinstance(value.get("x"), list))
    return CsvData.form if table else NpzData.form


Data = Annotated[
    Annotated[InlineData, Tag(InlineData.form)]
    | Annotated[CsvData, Tag(CsvData.form)]
    | Annotated[NpzData, Tag(NpzData.form)]
    | Annotated[ShardData, Tag(ShardData.form)]
    | Annotated[SampleData, Tag(SampleData.form)],
    chosen_by(_data_form, "a mapping with x and y, with file, with shards, or with sample"),
]
