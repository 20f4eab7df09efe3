"""A local model is known by all that changes what it does."""
import pytest

from calib_nb.models import folder_key

FILES = [
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_templates/tool_use.jinja",
]


@pytest.fixture
def model_folder(tmp_path):
    for file in FILES:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(file)
    (tmp_path / "README.md").write_text("A model.")
    return tmp_path


@pytest.mark.parametrize("file", FILES)
def test_a_model_with_another_file_is_another_model(model_folder, file):
    before = folder_key(model_folder)
    path = model_folder / file
    path.write_text("other")
    assert folder_key(model_folder) != before
    path.unlink()
    assert folder_key(model_folder) != before
    path.write_text(file)
    assert folder_key(model_folder) == before


def test_a_file_under_another_name_is_another_model(model_folder):
    before = folder_key(model_folder)
    (model_folder / "chat_template.jinja").rename(model_folder / "template.jinja")
    assert folder_key(model_folder) != before


def test_what_is_written_about_a_model_does_not_change_it(model_folder):
    before = folder_key(str(model_folder))
    (model_folder / "README.md").write_text("Another text about it.")
    assert folder_key(model_folder) == before
