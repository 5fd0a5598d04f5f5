"""The list of faults that onnxqp has to bear, row by row, and the tests that hold it to that.

A row whose tests are renamed or gone fails here. What needs no more than one short test stands at the end.
"""

from __future__ import annotations

import ast
import socket
import time
from pathlib import Path

import fault_graphs as graphs
import numpy as np
import pytest
from place import PRUNE, QUANTIZE, WRITING, Place

HERE = Path(__file__).parent
FILES, DATA = "faults/test_fault_files.py", "faults/test_fault_data.py"
TENSORS, WIRING = "faults/test_fault_tensors.py", "faults/test_fault_wiring.py"
OPERATORS, UNUSUAL = "faults/test_fault_operators.py", "faults/test_fault_unusual.py"
ENVIRONMENT, EXTERNAL, KILL = (
    "faults/test_fault_environment.py",
    "faults/test_fault_external_data.py",
    "faults/test_kill.py",
)
HERE_TOO = "faults/test_every_row.py"
ARRAYS, IMAGES, PROCESS = "data/test_data_arrays.py", "data/test_data_images.py", "cli/test_process.py"

ROWS: dict[str, list[tuple[str, str]]] = {
    # the model file
    "empty file": [(FILES, "test_what_is_no_model_is_named")],
    "truncated": [(FILES, "test_truncated"), (FILES, "test_truncated_says_how_long_it_is")],
    "no protobuf": [(FILES, "test_what_is_no_model_is_named")],
    "wrong extension": [(FILES, "test_the_name_says_nothing")],
    "directory, missing, no permission": [
        (FILES, "test_a_folder_names_the_model_inside"),
        (FILES, "test_missing"),
        (FILES, "test_no_permission"),
        (FILES, "test_no_permission_as_the_system_says_it"),
    ],
    "more than 2 GB": [
        (FILES, "test_more_than_protobuf_can_hold"),
        (EXTERNAL, "test_more_weights_than_fit_into_a_file_get_a_second_one"),
    ],
    "deep nesting": [(FILES, "test_deep_nesting_is_explained"), (FILES, "test_nesting_that_protobuf_reads")],
    "20 000 nodes": [(HERE_TOO, "test_twenty_thousand_nodes")],
    # external data
    "external data missing": [(EXTERNAL, "test_missing"), (EXTERNAL, "test_no_location_at_all")],
    "external data outside of the folder": [
        (EXTERNAL, "test_outside_the_folder_or_no_file"),
        (EXTERNAL, "test_a_link_to_the_outside"),
        (EXTERNAL, "test_a_linked_folder_to_the_outside"),
        (EXTERNAL, "test_tensors_in_bodies_are_looked_at_too"),
    ],
    "external data: offsets and lengths": [
        (EXTERNAL, "test_offset_or_length_out_of_the_file"),
        (EXTERNAL, "test_shorter_than_the_tensors"),
    ],
    "external data through links": [
        (EXTERNAL, "test_a_link_inside_the_folder_is_the_users_own"),
        (EXTERNAL, "test_a_hard_link_may_be_a_file_of_elsewhere"),
    ],
    "external data: a pipe": [(EXTERNAL, "test_a_pipe_is_not_waited_for")],
    # the graph
    "declared dims beyond the data": [(TENSORS, "test_declared_dims_beyond_the_data"), (TENSORS, "test_negative_dims")],
    "input dims too large or negative": [
        (TENSORS, "test_an_input_too_large_to_make_up"),
        (TENSORS, "test_a_negative_input_size_is_an_open_one"),
        (TENSORS, "test_an_input_of_nothing"),
    ],
    "values beyond the memory": [(TENSORS, "test_values_beyond_the_memory")],
    "cycle, dangling input, duplicate output": [
        (WIRING, "test_cycle"),
        (WIRING, "test_node_that_reads_itself"),
        (WIRING, "test_cycle_through_a_body"),
        (WIRING, "test_dangling_input"),
        (WIRING, "test_dangling_output"),
        (WIRING, "test_duplicate_output"),
    ],
    "duplicate and missing node names": [
        (WIRING, "test_duplicate_node_names_are_made_unique"),
        (WIRING, "test_unnamed_nodes_get_names"),
    ],
    "duplicate initializer": [
        (TENSORS, "test_identical_initializers_are_one"),
        (TENSORS, "test_different_initializers_of_one_name"),
    ],
    "not topologically sorted": [(WIRING, "test_not_topologically_sorted")],
    "empty or identity graph": [(WIRING, "test_empty_graph"), (WIRING, "test_identity_graph")],
    "NaN, Inf, all-zero channel": [
        (TENSORS, "test_nan_or_inf_weight"),
        (TENSORS, "test_all_zero_channel"),
        (TENSORS, "test_all_zero_weights"),
    ],
    "double, bfloat16, float16": [
        (OPERATORS, "test_double_has_no_kernel_and_is_quantized_in_float32"),
        (OPERATORS, "test_bfloat16_has_no_kernel"),
        (OPERATORS, "test_float16_is_pruned_and_quantized"),
    ],
    "old opsets": [
        (OPERATORS, "test_old_opset_without_kernels"),
        (OPERATORS, "test_old_opset_is_raised_for_per_channel_weights"),
        (UNUSUAL, "test_a_scan_with_a_batch_axis_keeps_its_opset"),
    ],
    "opsets and IR versions beyond the runtime": [
        (OPERATORS, "test_beyond_the_installed_runtime"),
        (OPERATORS, "test_no_such_opset"),
        (OPERATORS, "test_newer_opsets_stay"),
    ],
    "unknown domain or operator": [(OPERATORS, "test_unknown_operator")],
    "subgraphs": [(UNUSUAL, "test_convolutions_in_a_body_stay_float_and_are_named")],
    "model-local functions": [(UNUSUAL, "test_functions_are_inlined"), (UNUSUAL, "test_recursive_functions")],
    "sparse initializer": [
        (TENSORS, "test_sparse_initializer_is_unpacked"),
        (TENSORS, "test_sparse_initializer_that_contradicts_itself"),
    ],
    "training": [(OPERATORS, "test_training_operators"), (OPERATORS, "test_training_info_is_dropped_and_said")],
    "already quantized": [(OPERATORS, "test_already_quantized")],
    "inputs that are no float tensors": [
        (UNUSUAL, "test_inputs_that_are_no_floats_are_fed"),
        (UNUSUAL, "test_string_input"),
        (UNUSUAL, "test_inputs_that_are_no_tensors"),
    ],
    "no-shape input, dynamic dims": [
        (TENSORS, "test_an_input_without_a_shape_takes_that_of_the_data"),
        (TENSORS, "test_dynamic_dims_stay_dynamic"),
    ],
    "bad kernel, group, stride": [(OPERATORS, "test_bad_attributes"), (OPERATORS, "test_attribute_of_another_type")],
    "tied weights, weights as outputs, inputs or shapes": [
        (UNUSUAL, "test_tied_weights"),
        (UNUSUAL, "test_a_weight_that_is_an_output_is_not_cut"),
        (UNUSUAL, "test_weights_that_are_inputs"),
        (UNUSUAL, "test_an_initializer_used_as_a_shape_is_rewritten"),
    ],
    "odd and long names": [
        (UNUSUAL, "test_names_are_only_names"),
        (UNUSUAL, "test_names_of_a_hundred_thousand_characters"),
        (UNUSUAL, "test_names_that_are_not_utf8"),
    ],
    # data
    "wrong shape, type or name": [
        (DATA, "test_wrong_shape_type_name_or_value"),
        (ARRAYS, "test_the_missing_batch_axis_and_the_other_layout_are_explained"),
    ],
    "NaN or Inf sample": [
        (DATA, "test_wrong_shape_type_name_or_value"),
        (ARRAYS, "test_a_bad_value_is_named_with_its_sample"),
    ],
    "empty, one sample, duplicates": [
        (DATA, "test_missing_or_no_data"),
        (DATA, "test_an_empty_folder"),
        (DATA, "test_one_sample_is_enough_with_a_warning"),
        (DATA, "test_all_samples_identical"),
        (HERE_TOO, "test_samples_that_repeat_are_no_fault"),
    ],
    "corrupt image, image bomb": [
        (DATA, "test_corrupt_images_and_bombs"),
        (IMAGES, "test_image_bombs"),
        (IMAGES, "test_truncated_images"),
    ],
    "pickled arrays": [(DATA, "test_pickled_arrays_are_never_opened"), (ARRAYS, "test_pickles_are_refused")],
    "headers that claim too much, archive bombs": [
        (DATA, "test_a_header_that_claims_128_tib"),
        (DATA, "test_a_zip_bomb"),
        ("calibrate/test_store.py", "test_pickles_and_archives_that_blow_up_are_refused"),
    ],
    "archive members": [(ARRAYS, "test_a_damaged_archive"), (ARRAYS, "test_an_encrypted_archive")],
    "link loops, pipes, hidden files": [
        (DATA, "test_links_pipes_and_loops"),
        (DATA, "test_a_pipe_is_not_waited_for"),
        (IMAGES, "test_hidden_files_pipes_dangling_links_and_loops"),
    ],
    "labels out of range or of another number": [
        (DATA, "test_labels_out_of_range_or_of_another_number"),
        (IMAGES, "test_another_number_of_folders_is_refused_with_a_hint"),
    ],
    # the environment and the process
    "killed, interrupted, terminated at any moment": [
        (KILL, "test_killed_at_every_step_of_writing"),
        (KILL, "test_killed_at_random_moments"),
        (KILL, "test_stopped_while_writing"),
        (KILL, "test_stopped_in_the_middle_of_work"),
        (KILL, "test_a_call_that_does_not_end_is_left_within_a_second"),
        (ENVIRONMENT, "test_what_a_killed_run_left_is_swept_away"),
    ],
    "disk full, read-only, quota, missing folder": [
        (ENVIRONMENT, "test_disk_full_or_read_only"),
        (ENVIRONMENT, "test_a_limit_on_the_size_of_files"),
        ("faults/test_full_disk.py", "test_nothing_is_lost_on_a_full_disk"),
        (ENVIRONMENT, "test_read_only_folder"),
        (ENVIRONMENT, "test_an_output_that_cannot_be"),
    ],
    "output is the input": [
        (ENVIRONMENT, "test_output_is_the_input"),
        (ENVIRONMENT, "test_an_existing_output_needs_force"),
        ("cli/test_paths.py", "test_the_same_file_twice_is_refused"),
    ],
    "out of memory": [
        (ENVIRONMENT, "test_out_of_memory"),
        (ENVIRONMENT, "test_a_child_that_runs_out_of_memory"),
        (ENVIRONMENT, "test_a_child_that_the_system_kills_for_memory"),
    ],
    "native crash": [
        (ENVIRONMENT, "test_a_native_crash_is_exit_3_with_a_sentence"),
        (ENVIRONMENT, "test_after_a_crash_the_next_model_is_looked_at"),
    ],
    "hang": [(ENVIRONMENT, "test_a_hang_ends")],
    "two runs at once": [
        (ENVIRONMENT, "test_two_runs_at_once_on_one_output"),
        (ENVIRONMENT, "test_an_output_that_appears_meanwhile_is_not_overwritten"),
    ],
    "odd paths": [
        (ENVIRONMENT, "test_unicode_spaces_and_quotes_in_paths"),
        (ENVIRONMENT, "test_current_folder_deleted"),
        (ENVIRONMENT, "test_a_dash_is_no_path"),
        (FILES, "test_names_that_no_file_has"),
    ],
    "locale C": [(ENVIRONMENT, "test_locale_c_without_home"), (PROCESS, "test_no_locale_breaks_the_output")],
    "no terminal, NO_COLOR, any width": [
        (PROCESS, "test_colour_only_where_it_is_wanted"),
        (ENVIRONMENT, "test_any_width"),
    ],
    "closed stdout": [
        (PROCESS, "test_a_reader_that_leaves_is_no_fault"),
        (PROCESS, "test_a_full_device_is_an_output_error"),
    ],
    "clock changes": [(HERE_TOO, "test_no_duration_is_taken_from_a_clock_that_can_be_set")],
    "code from a configuration, from the current folder": [
        ("cli/test_settings.py", "test_code_runs_only_from_a_named_file"),
        ("test_config.py", "test_a_found_file_may_not_name_code"),
        (ENVIRONMENT, "test_the_child_imports_nothing_from_the_current_folder"),
    ],
    "remote addresses": [(HERE_TOO, "test_an_address_is_no_path")],
    "reports escape everything": [
        ("report/test_html.py", "test_every_text_is_only_text"),
        ("cli/test_github.py", "test_names_do_not_speak_to_the_runner"),
    ],
    "nothing of the machine in results": [(ENVIRONMENT, "test_nothing_of_the_machine_is_written_into_a_result")],
    "determinism": [
        ("test_determinism.py", "test_a_named_target_quantizes_to_the_same_bytes_on_any_number_of_threads"),
        ("test_determinism.py", "test_a_named_target_prunes_to_the_same_bytes_on_any_number_of_threads"),
        ("test_determinism.py", "test_auto_quantizes_to_the_same_bytes_from_a_profile"),
    ],
    "no network": [(ENVIRONMENT, "test_no_network")],
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_its_tests(row: str) -> None:
    for file, name in ROWS[row]:
        assert name in functions(HERE.parent / file), f"{file} has no {name}"


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_every_fault_test_belongs_to_a_row() -> None:
    """Of the files that are named for it."""
    listed = {pair for pairs in ROWS.values() for pair in pairs}
    named = sum((f"faults/{path.name}", name) in listed for path in HERE.glob("test_*.py") for name in functions(path))
    assert named > 80


# ---- rows of one test ------------------------------------------------------------------------------------------


def test_twenty_thousand_nodes(place: Place) -> None:
    place.put(graphs.long_chain(20_000))
    start = time.monotonic()
    assert place.run("inspect", "m.onnx").code == 0
    assert time.monotonic() - start < 60, "ten seconds, on a machine that does nothing else"


@pytest.mark.parametrize("address", ["https://example.org/m.onnx", "s3://bucket/m.onnx", "file:///m.onnx"])
def test_an_address_is_no_path(place: Place, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """It is taken for a name of a file that is not there; nobody is asked over a network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("onnxqp opens no sockets")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    place.refused(3, "inspect", address)
    place.put(graphs.network())
    for command in WRITING:
        place.refused(4, *command, "--data", address)


def test_no_duration_is_taken_from_a_clock_that_can_be_set() -> None:
    package = HERE.parents[1] / "onnxqp"
    wrong = [str(path) for path in package.rglob("*.py") if "time.time()" in path.read_text(encoding="utf-8")]
    assert wrong == []


def test_samples_that_repeat_are_no_fault(place: Place) -> None:
    place.put(graphs.network())
    np.savez(place.folder / "d.npz", x=np.repeat(np.random.default_rng(0).random((1, *graphs.SHAPE), np.float32), 8, 0))
    place.done(*QUANTIZE, "--data", "d.npz")
    place.done(*PRUNE, "--data", "d.npz")
