"""The models of the spec: every form, every fault in the user's terms, a JSON Schema that says the same."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import BASE, spec_with, wrong_specs

from resnet_cert.problem.losses import LOSSES
from resnet_cert.problem.networks import ACTIVATIONS
from resnet_cert.spec import spec_schema
from resnet_cert.spec.document import Document
from resnet_cert.spec.models import Spec
from resnet_cert.spec.sampling import INPUTS, TEACHERS
from resnet_cert.spec.source import parse
from resnet_cert.spec.validation import validate

FORMS = {
    "data": [
        "{x: [[1]], y: [1]}",
        "{x: [[1.0], [2]], y: [1, -1], probabilities: [0.5, 0.5], f: [[1], [2]]}",
        "{x: x.npy, y: y.npy}",
        "{x: x.NPY, y: [1.0], f: f.npy, probabilities: p.npy}",
        "{x: [[1]], y: [[1.0, 0.5]], omega: [[1, 0]]}",
        "{x: [[1]], y: [[1]], omega: omega.npy}",
        "{file: a.csv, x: [age, body mass], y: progression}",
        "{file: a.CSV, x: [age], y: y, f: [f1, f2], probabilities: p}",
        "{file: a.csv, x: [age], y: [y1, y2], omega: [o1, o2]}",
        "{file: a.npz}",
        "{file: dir/a.npz, x: X, y: Y, f: F, probabilities: P, omega: O}",
        "{sample: {n: 4096, d: 8, x: gaussian, y: {teacher: linear, noise: 0.1}, seed: 0}}",
        "{sample: {n: 1, d: 1, y: {teacher: sign}}}",
    ],
    "loss": [
        *LOSSES,
        "{kind: squared, scale: 2.0}",
        "{kind: logistic}",
        "{python: losses.py:my_loss}",
        "softmax",
        "{kind: softmax, scale: 0.5}",
        "{kind: weighted_squared, weights: omega}",
        "{kind: weighted_squared, weights: omega, scale: 2}",
    ],
    "network": [
        "{kind: linear, weight: [[0.1]]}",
        "{kind: linear, weight: [[0.1, 2]], bias: [1]}",
        "{kind: identity}",
        "{kind: mlp, activation: tanh, layers: [{weight: [[1.0]], bias: [0.5]}, {weight: [[1]]}]}",
        "{kind: mlp, activation: relu, widths: [16, 8], seed: 0}",
        "{kind: mlp, activation: relu, widths: [16]}",
        "{kind: mlp, activation: relu, file: theta.npz, layers: [{weight: l1.w, bias: l1.b}, {weight: w}]}",
        "{kind: given}",
        "{python: nets.py:features}",
    ],
    "point": ["{w: [0.0], V: [[-10.0]]}", "{file: point.npz}", "{W: [[0], [1.5]], V: [[-10.0]]}"],
    "epsilon": ["0", "0.2", "1e-3"],
    "domain": ["{}", "{b: auto, r: auto}", "{b: 2, r: 0}", "{r: 1.5}"],
    "lipschitz": ["{}", "{mu0: auto, mu1: auto, mu2: auto}", "{mu0: 0, mu1: 1.0, mu2: 2}"],
    "name": ["example-1", "'1'"],
}
VALID = [(key, form) for key, forms in FORMS.items() for form in forms]


def faults_of(text: str) -> list[str]:
    """LINE:COLUMN: MESSAGE of every fault of the tree."""
    source = parse(text, "s")
    assert source.faults == ()
    document = Document(source.value, source)
    found = sorted(map(document.diagnostic, validate(source.value)[1]), key=lambda d: (d.line, d.column))
    return [f"{d.line}:{d.column}: {d.message}" for d in found]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(spec_schema())


@pytest.mark.parametrize(("key", "form"), VALID)
def test_every_form_is_accepted_by_models_and_schema(
    key: str, form: str, schema: jsonschema.Draft202012Validator
) -> None:
    tree = parse(spec_with(**{key: form}), "s").value
    parts, faults = validate(tree)
    assert faults == []
    assert key in parts
    schema.validate(tree)


def test_every_name_of_every_table_is_accepted() -> None:
    for name in ACTIVATIONS:
        assert faults_of(spec_with(network=f"{{kind: mlp, activation: {name}, widths: [1]}}")) == []
    for name in INPUTS:
        assert (
            faults_of(spec_with(data=f"{{sample: {{n: 1, d: 1, x: {name}, y: {{teacher: linear}}}}}}")) == []
        )
    for name in TEACHERS:
        assert faults_of(spec_with(data=f"{{sample: {{n: 1, d: 1, y: {{teacher: {name}}}}}}}")) == []


def test_what_is_left_out_is_automatic() -> None:
    parts, _ = validate(parse(BASE, "s").value)
    assert dict(parts["domain"]) == {"b": "auto", "r": "auto"}
    assert dict(parts["lipschitz"]) == {"mu0": "auto", "mu1": "auto", "mu2": "auto"}
    assert parts["name"] is None


KEYS = ", ".join(Spec.model_fields)


WRONG = """
epsilon:
  1:1: missing key 'epsilon'

epsilon:
epsilonn: 1
  6:1: unknown key 'epsilonn'; did you mean 'epsilon'?

colour: {l2: 1}
  7:1: unknown key 'colour'; expected one of KEYS

Loss: squared
  7:1: unknown key 'Loss'; did you mean 'loss'?

version: 2
  1:10: expected 1, the only version there is, got 2

version: 1.0
  1:10: expected 1, the only version there is, got 1.0

version: true
  1:10: expected 1, the only version there is, got true

name: 3
  7:7: expected a word, got 3

name: ' '
  7:7: expected a word, got ''

epsilon: -1
  6:10: expected a number ≥ 0, got -1

epsilon: '1'
  6:10: expected a number ≥ 0, got '1'

epsilon: true
  6:10: expected a number ≥ 0, got true

epsilon: auto
  6:10: expected a number ≥ 0, got 'auto'

epsilon: ~
  6:10: expected a number ≥ 0, got nothing

epsilon: [0.1]
  6:10: expected a number ≥ 0, got a list of 1

domain: 3
  7:9: expected a mapping with b, r, got 3

domain: {b: 0}
  7:13: expected a number > 0 or auto, got 0

domain: {r: -1, b: Auto}
  7:13: expected a number ≥ 0 or auto, got -1
  7:20: expected a number > 0 or auto, got 'Auto'

lipschitz: {mu3: 1}
  7:13: unknown key 'mu3'; did you mean 'mu2'?

lipschitz: {mu0: false}
  7:18: expected a number ≥ 0 or auto, got false

data: [1]
  2:7: expected a mapping with x and y, with file, or with sample, got a list of 1

data: {}
  2:1: missing key 'x' in data given as arrays
  2:1: missing key 'y' in data given as arrays

data: {x: [[1]], y: [1], z: 1}
  2:26: unknown key 'z' in data given as arrays; expected one of x, y, f, probabilities, omega

data: {x: [[1]], y: [1], probabilites: [1]}
  2:26: unknown key 'probabilites' in data given as arrays; did you mean 'probabilities'?

data: {fiel: a.csv, x: [a], y: b}
  2:8: unknown key 'fiel' in data from a CSV file; did you mean 'file'?

data: {file: a.csv, x: a, y: [b, 1, ~], omega: c}
  2:24: expected a list, got 'a'
  2:34: expected the name of a column (numbers in quotes), got 1
  2:37: expected the name of a column (numbers in quotes), got nothing
  2:48: expected a list, got 'c'

data: {file: a.csv, x: [a], y: [], omega: []}
  2:32: expected the name of a column (numbers in quotes), got an empty list
  2:43: expected at least one entry, got an empty list

data: {file: a.csv, x: [], y: b}
  2:24: expected at least one entry, got an empty list

data: {file: a.csv, x: [a, 1], y: b}
  2:28: expected the name of a column (numbers in quotes), got 1

data: {file: a.csv, x: [a]}
  2:1: missing key 'y' in data from a CSV file

data: {file: a.npz, x: [a]}
  2:24: expected the name of an array, got a list of 1

data: {file: a.npy}
  2:14: expected the name of a .csv, .npz or .safetensors file (.npy files are given as x: x.npy, y: y.npy), got
    'a.npy'

data: {file: a.txt, x: [a], y: b}
  2:14: expected the name of a .csv, .npz or .safetensors file (.npy files are given as x: x.npy, y: y.npy), got
    'a.txt'

data: {file: 3}
  2:14: expected the name of a .csv, .npz or .safetensors file (.npy files are given as x: x.npy, y: y.npy), got 3

data: {x: x.txt, y: 3}
  2:11: expected a list of rows of numbers or the name of a .npy file, got 'x.txt'
  2:21: expected a list of numbers or the name of a .npy file, got 3

data: {sample: {n: 0, d: 1.0, y: {teacher: linaer, noise: -1}, seed: true}}
  2:20: expected an integer ≥ 1, got 0
  2:26: expected an integer ≥ 1, got 1.0
  2:44: unknown teacher 'linaer'; did you mean 'linear'?
  2:59: expected a number ≥ 0, got -1
  2:70: expected an integer ≥ 0, got true

data: {sample: {n: 1, d: 1, y: linear}}
  2:32: expected a mapping with teacher, noise, got 'linear'

data: {sample: {n: 1, d: 1, x: 3, y: {}}}
  2:32: expected one of gaussian, uniform, sphere, rademacher, got 3
  2:35: missing key 'teacher'; expected one of linear, relu, constant, sign, logistic, poisson

data: {x: [[1, 2], [3], 4, [5, true], ['6', ~]], y: ['7']}
  2:20: row 2: expected 2 numbers as in the rows before, got 1
  2:25: expected a row of numbers, such as [1.0], got 4
  2:32: expected a number, got true
  2:40: expected a number, got '6'
  2:45: expected a number, got nothing
  2:54: expected a number, got '7'

data: {x: [[], [1]], y: []}
  2:12: row 1: expected 1 number, got 0
  2:25: expected a list of numbers, got an empty list

data: {x: [], y: [1]}
  2:11: expected a list of rows of numbers, such as [[1.0, 2.0], [3.0, 4.0]], got an empty list

data: {x: [1, 2], y: [1]}
  2:12: expected a row of numbers, such as [1.0], got 1
  2:15: expected a row of numbers, such as [1.0], got 2

loss: sqared
  3:7: unknown loss 'sqared'; did you mean 'squared'?

loss: huber
  3:7: unknown loss 'huber'; expected one of squared, logistic, pseudo_huber, poisson, softmax

loss: 3
  3:7: expected the name of a loss, {kind: ...} or {python: ...}, got 3

loss: {kind: sqared, scal: 2}
  3:14: unknown loss 'sqared'; did you mean 'squared'?

loss: {kind: squared, scal: 2}
  3:23: unknown key 'scal' in a built-in loss; did you mean 'scale'?

loss: {kind: squared, scale: 0}
  3:30: expected a number > 0, got 0

loss: {scale: 2}
  3:1: missing key 'kind'; expected one of squared, logistic, pseudo_huber, poisson, softmax

loss: {python: l.py:f, kind: squared}
  3:24: unknown key 'kind' in a loss in Python; expected one of python

loss: {python: l.py}
  3:16: expected FILE.py:FUNCTION, got 'l.py'

loss: {python: 'l.py:f()'}
  3:16: expected FILE.py:FUNCTION, got 'l.py:f()'

network: identity
  4:10: expected a mapping with kind or with python, got 'identity'

network: {kind: lineer, weigth: [[1]]}
  4:17: unknown network 'lineer'; did you mean 'linear'?

network: {kinds: linear, weigth: [[1]]}
  4:11: unknown key 'kinds'; did you mean 'kind'?

network: {kind: [mlp]}
  4:17: expected one of linear, identity, given, mlp, got a list of 1

network: {weight: [[1]]}
  4:1: missing key 'kind'; expected one of linear, identity, given, mlp

network: {kind: linear}
  4:1: missing key 'weight' in a linear network

network: {kind: linear, weigth: [[1]]}
  4:25: unknown key 'weigth' in a linear network; did you mean 'weight'?

network: {kind: identity, k: 3}
  4:27: unknown key 'k' in an identity network; expected one of kind

network: {kind: mlp}
  4:1: missing key 'activation'; expected one of tanh, relu, softplus, sigmoid, gelu, silu
  4:1: missing key 'layers' in an mlp with its layers in the spec

network: {kind: mlp, activation: tnh, widhts: [1]}
  4:34: unknown activation 'tnh'; did you mean 'tanh'?
  4:39: unknown key 'widhts' in an mlp with drawn weights; did you mean 'widths'?

network: {kind: mlp, activation: tanh, widths: [1, 0, 2.0]}
  4:52: expected an integer ≥ 1, got 0
  4:55: expected an integer ≥ 1, got 2.0

network: {kind: mlp, activation: tanh, widths: [1], layers: [{weight: [[1]]}]}
  4:53: unknown key 'layers' in an mlp with drawn weights; expected one of kind, activation, widths,
    seed

network: {kind: mlp, activation: tanh, layers: [{weight: [[1], [2, 3]], bais: [1]}, 3]}
  4:64: row 2: expected 1 number as in the rows before, got 2
  4:73: unknown key 'bais'; did you mean 'bias'?
  4:85: expected a mapping with weight, bias, got 3

network: {kind: mlp, activation: tanh, file: t.npz, layers: [{weight: [[1]]}]}
  4:71: expected the name of an array, got a list of 1

network: {kind: mlp, activation: tanh, file: t.csv, layers: [{weight: w}]}
  4:46: expected the name of a .npz file, got 't.csv'

network: {pyhton: n.py:f}
  4:11: unknown key 'pyhton' in a network in Python; did you mean 'python'?

point: 3
  5:8: expected a mapping with w and V, or with file, got 3

point: {w: [0], v: [[0]]}
  5:17: unknown key 'v' in a point in the spec; did you mean 'V'?

point: {w: 0, V: [0]}
  5:12: expected a list of numbers, got 0
  5:19: expected a row of numbers, such as [1.0], got 0

point: {file: p.npz, w: [0]}
  5:22: unknown key 'w' in a point from a file; expected one of file

point: {W: [0], V: [[0]]}
  5:13: expected a row of numbers, such as [1.0], got 0

point: {W: [[0]], v: [[0]], w: [0]}
  5:19: unknown key 'v' in a point of several outputs; did you mean 'V'?
  5:29: unknown key 'w' in a point of several outputs; did you mean 'W'?

point: {W: [[0, 1], [2]]}
  5:1: missing key 'V' in a point of several outputs
  5:21: row 2: expected 2 numbers as in the rows before, got 1

loss: weighted_squared
  3:7: expected a mapping with kind, weights, scale, got 'weighted_squared'

loss: {kind: weighted_squared}
  3:1: missing key 'weights'; expected one of omega

loss: {kind: weighted_squard, weights: omaga, scale: 0}
  3:14: unknown loss 'weighted_squard'; did you mean 'weighted_squared'?

loss: {kind: weighted_squared, weights: omaga, scale: 0}
  3:41: unknown array of weights 'omaga'; did you mean 'omega'?
  3:55: expected a number > 0, got 0

data: {x: [[1]], y: [[1, 2], [3]], omega: [[1], 2]}
  2:30: row 2: expected 2 numbers as in the rows before, got 1
  2:49: expected a row of numbers, such as [1.0], got 2

data: {x: [[1]], y: [1, [2]], omega: om.npz}
  2:25: expected a number, got a list of 1
  2:38: expected a list of rows of numbers or the name of a .npy file, got 'om.npz'

data: {file: a.npz, y: [a, b], omega: 3}
  2:24: expected the name of an array, got a list of 2
  2:39: expected the name of an array, got 3

data: 3
loss: 4
point:
epsilon: x
  1:1: missing key 'point'
  2:7: expected a mapping with x and y, with file, or with sample, got 3
  3:7: expected the name of a loss, {kind: ...} or {python: ...}, got 4
  5:10: expected a number ≥ 0, got 'x'
"""


@pytest.mark.parametrize(("parts", "faults"), wrong_specs(WRONG))
def test_a_wrong_spec_is_told_in_terms_of_what_was_meant(parts: dict[str, str], faults: list[str]) -> None:
    assert faults_of(spec_with(**parts)) == [fault.replace("KEYS", KEYS) for fault in faults]


@pytest.mark.parametrize(
    ("text", "found"), [("[1]", "a list of 1"), ("3", "3"), ("", "nothing"), ("a", "'a'")]
)
def test_the_top_level_must_be_a_mapping(text: str, found: str) -> None:
    assert faults_of(text) == [f"1:1: expected a mapping with {KEYS}, got {found}"]


def test_a_thousand_wrong_entries_are_told_in_a_few_lines() -> None:
    faults = faults_of(spec_with(data=f"{{x: [[1]], y: [{', '.join(['a'] * 1000)}]}}"))
    assert len(faults) == 21
    assert faults[19] == "2:79: expected a number, got 'a'"
    assert faults[20] == "2:82: and 980 more such faults from here"


def test_the_parts_without_faults_are_still_there() -> None:
    parts, faults = validate(parse(spec_with(loss="sqared", domain="{b: -1}"), "s").value)
    assert len(faults) == 2
    assert set(parts) == set(Spec.model_fields) - {"loss", "domain"}


def test_the_schema_is_one_self_contained_document(schema: jsonschema.Draft202012Validator) -> None:
    document = spec_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(document["properties"]) == set(Spec.model_fields)

    def references(part: Any) -> list[str]:
        if isinstance(part, list):
            return [ref for inner in part for ref in references(inner)]
        if not isinstance(part, dict):
            return []
        here = [part["$ref"]] if "$ref" in part else []
        return here + [ref for inner in part.values() for ref in references(inner)]

    assert {ref.removeprefix("#/$defs/") for ref in references(document)} == set(document["$defs"])


def test_every_key_of_the_schema_has_a_description_and_every_mapping_is_closed() -> None:
    document = spec_schema()
    sections = [document, *document["$defs"].values()]
    for section in sections:
        assert section["additionalProperties"] is False
        assert section["description"]
        for key, part in section["properties"].items():
            described = "description" in part or "$ref" in part or "const" in part or key == "kind"
            assert described, (section["title"], key)


JUNK = ["junk", "", -1, 3.5, 1, True, False, [], {}, [[1.0]], [1.0], ["a"], {"kind": "mlp"}, [[1.0, "a"]]]


def paths_of(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a tree."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(inner for key, part in parts for inner in paths_of(part, (*path, key)))]


@given(form=st.sampled_from(VALID), data=st.data())
def test_models_and_schema_agree_on_what_is_wrong(
    form: tuple[str, str], data: st.DataObject, schema: jsonschema.Draft202012Validator
) -> None:
    """One part of a valid spec is replaced, removed or renamed."""
    key, text = form
    tree = copy.deepcopy(parse(spec_with(**{key: text}), "s").value)
    path = data.draw(st.sampled_from([path for path in paths_of(tree) if path]))
    parent = tree
    for part in path[:-1]:
        parent = parent[part]
    change = data.draw(st.sampled_from(["replace", "remove", "rename"]))
    if change == "remove":
        del parent[path[-1]]
    elif change == "rename" and isinstance(parent, dict):
        parent[path[-1] + "s"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = data.draw(st.sampled_from(JUNK))
    _, faults = validate(tree)
    ragged = any("expected" in fault.message and fault.message.startswith("row ") for fault in faults)
    if not ragged:  # that the rows of a matrix are equally long cannot be said in JSON Schema
        assert schema.is_valid(tree) == (not faults)


def test_validating_a_spec_loads_no_jax() -> None:
    program = (
        "import sys\n"
        "from resnet_cert.spec.source import parse\n"
        "from resnet_cert.spec.validation import validate\n"
        f"assert validate(parse({BASE!r}, 's').value)[1] == []\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
