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
from resnet_cert.problem.targets import FRAMEWORK_NAMES
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
        "{x: [[1]], y: [[1]], bypass: [[1, 2]], compare: {pixels: x0.npy, all: [x, f]}}",
        "{x: [[1]], y: [no, yes], labels: {no: -1, yes: 1.0}}",
        "{x: [[1]], y: [1], probabilities: [0.5], normalise: true}",
        "{file: a.csv, x: [a], y: y, bypass: [b, c], compare: {all: [a, b]}, delimiter: tab}",
        "{file: a.csv, x: [a], y: y, labels: {0: -1, 1: 1}, delimiter: semicolon}",
        "{file: a.npz, bypass: z, compare: {pixels: x0}, labels: {a: 0}, normalise: false}",
        "{shards: 'data/*.npz'}",
        "{shards: data, x: [a, b], y: t, f: h, bypass: z, probabilities: p, compare: {early: [e1, e2]}}",
        "{sample: {n: 4096, d: 8, x: gaussian, y: {teacher: linear, noise: 0.1}, seed: 0}}",
        "{sample: {n: 1, d: 1, y: {teacher: sign}}}",
    ],
    "loss": [
        *(kind for kind, loss in LOSSES.items() if not loss.weighted),
        *FRAMEWORK_NAMES,
        "{kind: mse, scale: 2}",
        "{kind: bce_with_logits}",
        "{kind: cross_entropy}",
        "{kind: cross_entropy, label_smoothing: 0.1, class_weights: [1.0, 5]}",
        "{python: losses.py:my_loss, convex: auto}",
        "{python: losses.py:my_loss, convex: true}",
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
    "point": [
        "{w: [0.0], V: [[-10.0]]}",
        "{w: [[0.0]], V: [[-10.0]], c: 1}",
        "{w: [0.0], V: [[-10.0]], c: [0.5]}",
        "{W: [[0], [1.5]], V: [[-10.0]]}",
        "{W: [[0], [1.5]], V: [[-10.0]], c: [1, 2.0]}",
        "{file: point.npz}",
        "{file: model.safetensors, W: head.weight, V: block.proj.weight, c: head.bias}",
        "{file: point.npz, w: head, V: block}",
    ],
    "regularizer": [
        "{l2: 0.25}",
        "{l2: 0, bias: false}",
        "{weight_decay: 1e-3}",
        "{weight_decay: 1e-3, bias: true}",
    ],
    "constraint": ["{norm: 2.0}"],
    "hessian": ["auto", "exact", "bound"],
    "expect": ["CERTIFIED", "[CERTIFIED, UNDECIDED]"],
    "population": [
        "{confidence: 0.99, bounds: {x: 10.0, f: 20.0, y: 1}}",
        "{bounds: {x: 10.0, f: 20.0, y: 1.0}}",
    ],
    "epsilon": ["0", "0.2", "1e-3"],
    "domain": ["{}", "{b: auto, r: auto}", "{b: 2, r: 0}", "{r: 1.5}"],
    "lipschitz": ["{}", "{mu0: auto, mu1: auto, mu2: auto}", "{mu0: 0, mu1: 1.0, mu2: 2}"],
    "name": ["example-1", "'1'"],
}
VALID = [(key, form) for key, forms in FORMS.items() for form in forms]


def faults_of(text: str) -> list[str]:
    """LINE:COLUMN id of every fault of the tree."""
    source = parse(text, "s")
    assert source.faults == ()
    document = Document(source.value, source)
    found = sorted(map(document.diagnostic, validate(source.value)[1]), key=lambda d: (d.line, d.column))
    return [f"{d.line}:{d.column} {d.id}" for d in found]


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
  1:1 missing-key

epsilon:
epsilonn: 1
  6:1 unknown-key

colour: {l2: 1}
  7:1 unknown-key

Loss: squared
  7:1 unknown-key

version: 2
  1:10 wrong-value

version: 1.0
  1:10 wrong-value

version: true
  1:10 wrong-value

name: 3
  7:7 wrong-value

name: ' '
  7:7 wrong-value

epsilon: -1
  6:10 wrong-value

epsilon: '1'
  6:10 wrong-value

epsilon: true
  6:10 wrong-value

epsilon: auto
  6:10 wrong-value

epsilon: ~
  6:10 wrong-value

epsilon: [0.1]
  6:10 wrong-value

domain: 3
  7:9 wrong-value

domain: {b: 0}
  7:13 wrong-value

domain: {r: -1, b: Auto}
  7:13 wrong-value
  7:20 wrong-value

lipschitz: {mu3: 1}
  7:13 unknown-key

lipschitz: {mu0: false}
  7:18 wrong-value

data: [1]
  2:7 wrong-value

data: {}
  2:1 missing-key
  2:1 missing-key

data: {x: [[1]], y: [1], z: 1}
  2:26 unknown-key

data: {x: [[1]], y: [1], probabilites: [1]}
  2:26 unknown-key

data: {fiel: a.csv, x: [a], y: b}
  2:8 unknown-key

data: {file: a.csv, x: a, y: [b, 1, ~], omega: c}
  2:24 wrong-value
  2:34 wrong-value
  2:37 wrong-value
  2:48 wrong-value

data: {file: a.csv, x: [a], y: [], omega: []}
  2:32 wrong-value
  2:43 wrong-value

data: {file: a.csv, x: [], y: b}
  2:24 wrong-value

data: {file: a.csv, x: [a, 1], y: b}
  2:28 wrong-value

data: {file: a.csv, x: [a]}
  2:1 missing-key

data: {file: a.npz, x: [a]}
  2:24 wrong-value

data: {file: a.npy}
  2:14 wrong-value

data: {file: a.txt, x: [a], y: b}
  2:14 wrong-value

data: {file: 3}
  2:14 wrong-value

data: {x: x.txt, y: 3}
  2:11 wrong-value
  2:21 wrong-value

data: {sample: {n: 0, d: 1.0, y: {teacher: linaer, noise: -1}, seed: true}}
  2:20 wrong-value
  2:26 wrong-value
  2:44 unknown-name
  2:59 wrong-value
  2:70 wrong-value

data: {sample: {n: 1, d: 1, y: linear}}
  2:32 wrong-value

data: {sample: {n: 1, d: 1, x: 3, y: {}}}
  2:32 wrong-value
  2:35 missing-key

data: {x: [[1, 2], [3], 4, [5, true], ['6', ~]], y: ['7']}
  2:20 ragged-rows
  2:25 wrong-value
  2:32 wrong-value
  2:40 wrong-value
  2:45 wrong-value

data: {x: [[], [1]], y: []}
  2:12 ragged-rows
  2:25 wrong-value

data: {x: [], y: [1]}
  2:11 wrong-value

data: {x: [1, 2], y: [1]}
  2:12 wrong-value
  2:15 wrong-value

loss: sqared
  3:7 unknown-name

loss: huber
  3:7 unknown-name

loss: 3
  3:7 wrong-value

loss: {kind: sqared, scal: 2}
  3:14 unknown-name

loss: {kind: squared, scal: 2}
  3:23 unknown-key

loss: {kind: squared, scale: 0}
  3:30 wrong-value

loss: {scale: 2}
  3:1 missing-key

loss: {python: l.py:f, kind: squared}
  3:24 unknown-key

loss: {python: l.py}
  3:16 wrong-value

loss: {python: 'l.py:f()'}
  3:16 wrong-value

network: identity
  4:10 wrong-value

network: {kind: lineer, weigth: [[1]]}
  4:17 unknown-name

network: {kinds: linear, weigth: [[1]]}
  4:11 unknown-key

network: {kind: [mlp]}
  4:17 wrong-value

network: {weight: [[1]]}
  4:1 missing-key

network: {kind: linear}
  4:1 missing-key

network: {kind: linear, weigth: [[1]]}
  4:25 unknown-key

network: {kind: identity, k: 3}
  4:27 unknown-key

network: {kind: mlp}
  4:1 missing-key
  4:1 missing-key

network: {kind: mlp, activation: tnh, widhts: [1]}
  4:34 unknown-name
  4:39 unknown-key

network: {kind: mlp, activation: tanh, widths: [1, 0, 2.0]}
  4:52 wrong-value
  4:55 wrong-value

network: {kind: mlp, activation: tanh, widths: [1], layers: [{weight: [[1]]}]}
  4:53 unknown-key

network: {kind: mlp, activation: tanh, layers: [{weight: [[1], [2, 3]], bais: [1]}, 3]}
  4:64 ragged-rows
  4:73 unknown-key
  4:85 wrong-value

network: {kind: mlp, activation: tanh, file: t.npz, layers: [{weight: [[1]]}]}
  4:71 wrong-value

network: {kind: mlp, activation: tanh, file: t.csv, layers: [{weight: w}]}
  4:46 wrong-value

network: {pyhton: n.py:f}
  4:11 unknown-key

point: 3
  5:8 wrong-value

point: {w: [0], v: [[0]]}
  5:17 unknown-key

point: {w: 0, V: [0]}
  5:12 wrong-value
  5:19 wrong-value

point: {file: p.npz, w: [0]}
  5:25 wrong-value

point: {W: [0], V: [[0]]}
  5:13 wrong-value

point: {W: [[0]], v: [[0]], w: [0]}
  5:19 unknown-key
  5:29 unknown-key

point: {W: [[0, 1], [2]]}
  5:1 missing-key
  5:21 ragged-rows

loss: weighted_squared
  3:7 wrong-value

loss: {kind: weighted_squared}
  3:1 missing-key

loss: {kind: weighted_squard, weights: omaga, scale: 0}
  3:14 unknown-name

loss: {kind: weighted_squared, weights: omaga, scale: 0}
  3:41 unknown-name
  3:55 wrong-value

data: {x: [[1]], y: [[1, 2], [3]], omega: [[1], 2]}
  2:30 ragged-rows
  2:49 wrong-value

data: {x: [[1]], y: [1, [2]], omega: om.npz}
  2:25 wrong-value
  2:38 wrong-value

data: {file: a.npz, y: [a, b], omega: 3}
  2:24 wrong-value
  2:39 wrong-value

data: 3
loss: 4
point:
epsilon: x
  1:1 missing-key
  2:7 wrong-value
  3:7 wrong-value
  5:10 wrong-value
"""


@pytest.mark.parametrize(("parts", "faults"), wrong_specs(WRONG))
def test_a_wrong_spec_is_told_in_terms_of_what_was_meant(parts: dict[str, str], faults: list[str]) -> None:
    assert faults_of(spec_with(**parts)) == [fault.replace("KEYS", KEYS) for fault in faults]


@pytest.mark.parametrize(
    ("text", "found"), [("[1]", "a list of 1"), ("3", "3"), ("", "nothing"), ("a", "'a'")]
)
def test_the_top_level_must_be_a_mapping(text: str, found: str) -> None:
    [fault] = validate(parse(text, "s").value)[1]
    assert fault == ((), f"expected a mapping with {KEYS}, got {found}", "wrong-value", False)


def test_a_thousand_wrong_entries_are_told_in_a_few_lines() -> None:
    faults = faults_of(spec_with(data=f"{{x: [[1]], y: [1, {', '.join(['a'] * 1000)}]}}"))
    assert len(faults) == 21
    assert (faults[19], faults[20]) == ("2:82 wrong-value", "2:85 wrong-value")


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
