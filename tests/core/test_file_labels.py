import pytest
from backplane_core.file_labels import has_label


@pytest.mark.parametrize(
    ("name", "label", "has"),
    [
        ("model-Q4_K_M", "q4_k_m", True),
        ("Q8_0/model", "Q8_0", True),
        ("lora.F16", "f16", True),
        ("model-BF16", "F16", False),
        ("model-Q4_K_M", "Q4_K", False),
        ("model-Q4x0", "Q4.0", False),
    ],
)
def test_a_label_stands_by_itself(name, label, has):
    assert has_label(name, label) is has
