"""Fixtures every test may use."""

from __future__ import annotations

import os
import pathlib
import re

import pytest

# TensorFlow reads these once, when it is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores run other test files
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

from tests.tiny import build_tiny_classifier


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of development data and models; skips where there is none."""
    folder = os.environ.get("GDFQ_DATA_DIR")
    if not folder:
        pytest.skip("needs development data: GDFQ_DATA_DIR is not set")
    return pathlib.Path(folder)


@pytest.fixture
def tiny_classifier():
    """A fresh `tests.tiny.build_tiny_classifier(seed=0)`."""
    return build_tiny_classifier(seed=0)


# Tests that take seconds each and go a way that a quicker one goes too: another variant
# of the same test, or the same through another door. `make test-slow` runs them.
_LONG_VARIANTS = re.compile(
    "|".join(
        [
            r"test_(readers|lambdas|file_cell)\.py::.*saved_model",
            r"test_readers\.py::test_family_that_keras_3_lacks",
            r"test_readers\.py::test_application_with_a_weights_file"
            r"\[(keras3|tf_keras-net\.weights)",
            r"test_readers\.py::test_weights_of_every_kind_of_layer\[tf_keras",
            r"test_canaries\.py::test_places_in_files\[(?!keras3-\.keras)",
            r"test_load\.py::test_application_brings",
            r"test_load\.py::test_trained_(resnets.*cifar100|mobilenet.*h5)",
            r"test_live_models\.py::test_embedded_is_a_name",
            r"test_keras_compat\.py::(.*environment|test_keras_3_on_another)",
            r"test_firmware\.py::test_bytes_are.*\[(?!movements)",
            r"test_firmware\.py::test_(without_floating|nothing_undefined|softmax.*2\])",
            r"test_firmware\.py::test_multipliers_and.*\[sizes0",
            r"test_firmware\.py::test_sums_are_exact.*\[4\]",
            r"test_pipeline\.py::test_all_stages.*(gdfq|balanced)",
            r"test_refinement\.py::test_the_loss_of_most_weight.*0\.5",
            r"test_trade_off\.py::test_limits_of_bytes.*0\]",
            r"test_moments\.py::test_moments_are_numpys.*2-",
            r"test_canonical\.py::test_(rewrite|branches|heads?)_.*tf_keras",
            r"test_lowering\.py::test_(another_bound|student_and_integers|gated_student)",
            r"test_lowering\.py::test_bounds_cost.*bounds[123]\]",
            r"test_distillation\.py::test_(a_seed|outputs_without_classes|a_student_that)",
            r"test_mixed_precision\.py::test_(kernels_with|a_kernel_on.*(dw|conv))",
            r"test_alternating\.py::test_of_large_images",
            r"test_simulator\.py::test_equals_litert_bit_by_bit"
            r"\[(kernels-conv_w2|activations-conv_a3|products|movements-relu|normal.*far)",
            r"test_simulator\.py::test_every_value_of_a(_leaky_relu.*[1-9]\]|n_activation)",
            r"test_other_networks\.py::test_(features_joined|one_column|outputs_have_8)",
            r"test_other_networks\.py::test_networks_without_batch.*balanced",
            r"test_other_networks\.py::test_inputs_of_other_shapes",
            r"test_other_networks\.py::test_(branches|images_of_a_multi|without_batch)",
            r"test_other_networks\.py::test_features_without_statistics",
            r"test_pipeline\.py::test_all_stages_are_announced_first\[(gdfq|cal)",
            r"test_pipeline\.py::test_(a_loss_that|layers_the_protocol|layers_named)",
            r"test_pipeline\.py::test_the_(same_seed|estimate_is)",
            r"test_pipeline\.py::test_without_training.*\[w.a8\]",
            r"test_pipeline\.py::test_kept_layers_are_int8.*patterns[02]-",
            r"test_pipeline\.py::test_(the_edge_protocol|the_classifier_is|a_kept_layer)",
            r"test_api\.py::test_(options_mean|progress)",
            r"test_lambdas\.py::test_objects_of_modules",
            r"test_lowering\.py::test_(operations_are|gates_become)",
            r"test_commands\.py::test_(an_earlier_run|kept_layers|multi_label|mixed_prec)",
            r"test_commands\.py::test_(features_are|a_run_without|a_run_for_phones)",
            r"test_damaged_tflite\.py",
            r"test_reproducibility\.py::test_determinism_that_was_on",
            r"test_runner\.py::test_tensorflow_starts_quietly",
            r"test_fully_connected\.py::test_outputs_of_the_builtin",
            r"test_train_classifier\.py::test_(embedded|training)",
            r"test_canaries\.py::test_places_of_a_json",
            r"test_machine\.py::test_threads_are_fixed",
            r"test_documents\.py::test_python_runs",
            r"test_ends\.py::test_classifiers_are_taken.*(-tf_keras-\.keras|two-keras"
            r"|number-keras|scores-tf|half-tf)",
            r"test_ends\.py::test_(outputs_are_chosen|inputs_that).*tf_keras-\.keras",
            r"test_ends\.py::test_outputs_are_chosen.*\[keras-",
            r"test_simulator\.py::test_equals_litert_bit_by_bit\[(activ|norm)",
            r"test_int16\.py::test_equals_litert_bit_by_bit\[kernels",
            r"test_checkpoints\.py::test_a_killed_stage.*alternated",
            r"test_other_networks\.py::test_activations_of_16",
            r"test_api\.py::test_a_saved_run_is_made_again",
            r"test_constant_operands\.py::test_constants_differ.*-tf_keras\]",
            r"test_pipeline\.py::test_kept_layers_are_int8.*patterns1-",
            r"test_input_shapes\.py::test_the_exported.*(row|flat image)",
            r"test_simulator\.py::test_equals_litert_bit_by_bit\[kernels-conv_relu_w2",
            r"test_precision\.py::test_a_live_model_is_quantized",
            r"test_precision\.py::test_files_are_read_as.*\[(b?float16|float64)",
            r"test_precision\.py::test_policies_of_the_process.*float64",
            r"test_subclasses\.py::test_(the_graph|so_it_is).*(\[Seq|tf_keras-\])",
            r"test_subclasses\.py::test_so_it_is.*-\.keras",
            r"test_api\.py::test_files_live_models_and",
            r"test_pipeline\.py::test_all_stages_are_announced_first\[balanced",
            r"test_input_shapes\.py::test_the_exported.*(picture|signal)",
            r"test_gptq\.py::test_layers_come_closer.*(w3a4|pixels1)",
            r"test_lowering\.py::test_integers_of_gates.*\[w4a8",
            r"test_readers\.py::test_batch_normalization_over_several.*(\[\]|h5)",
            r"test_readers\.py::test_application_with_a_weights_file",
            r"test_generator_training\.py::test_the_same_seed",
            r"test_load\.py::test_trained_mobilenet",
            r"test_live_models\.py::test_(paths_may_be|weights_may_be)",
            r"test_keras_compat\.py::test_keras_3_with_a_backend",
            r"test_other_networks\.py::test_networks_without_batch",
            r"test_augmentation\.py::test_files_with_all.*tf_keras-\.keras",
            r"test_every_layer\.py::test_(what_imitates|wrappers.*clustering)",
            r"test_every_layer\.py::test_layers_that_are_taken.*tf_keras\]",
            r"test_slices\.py::test_indices_are_read_from_files.*tf_keras-\.keras",
            r"test_alternating\.py::test_(a_student_loss_that|student_steps_move|distill)",
            r"test_pipeline\.py::test_published_recipe",
            r"test_distillation\.py::test_(steps_are_traced|a_step_is_relative)",
            r"test_lambdas\.py::test_.*tf_keras\.(keras|h5)",
            r"test_lowering\.py::test_(scales_hold_16|channels_switched)",
            r"test_refinement\.py::test_batches_are_of_nearly.*\[[^1]",
            r"test_generator_training\.py::test_the_(pool_has_exactly|configured_stat)",
            r"test_live_models\.py::test_loading_leaves",
            r"test_commands\.py::test_(evaluate_numbers|quantize_stores_the_numbers)",
            r"test_pipeline\.py::test_as_many_of_the_most_sensitive",
            r"test_subclasses\.py::test_the_graph.*keras-\.h5",
            r"test_generator_training\.py::test_losses_fall",
            r"test_lambdas\.py::test_the_copy.*tf_keras\.keras",
            r"test_canonical\.py::test_mobilenet_v2",
            r"test_transposed_convolution\.py::test_equals_the_layer",
            r"test_constant_operands\.py::test_(constants_are|models_inside).*"
            r"(\.keras-tf_keras|\.h5-keras3)",
            r"test_constant_operands\.py::test_signals.*keras3",
            r"test_ends\.py::test_(outputs_are|inputs_that|classifiers_are).*keras-\.h5",
            r"test_pipeline\.py::test_(a_limit_of_bytes|all_stages_are_announced)",
            r"test_pipeline\.py::test_kept_layers_are_int8.*patterns3",
            r"test_readers\.py::test_(architecture_with_other|weights_of_the_right)",
            r"test_reconstruction\.py::test_eight_bits.*True",
            r"test_load\.py::test_resizing_is_proven.*keras3",
            r"test_firmware_benchmark\.py::test_students",
            r"test_constant_inputs\.py::test_a_run_states",
            r"test_precision\.py::test_live_models_are_copied.*mixed_float16-keras3",
            r"test_augmentation\.py::test_files_with_all.*\[keras-\.keras",
            r"test_other_networks\.py::test_layers_without_a_bias",
            r"test_lowering\.py::test_a_bound_inside.*bounds2",
            r"test_checkpoints\.py::test_a_killed_stage.*"
            r"(generated-4|refined-4|reconstructed-0|from_noise|alternated-0)",
            r"test_images\.py::test_images_of_the_run_that_is_replaced",
        ]
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the long variants."""
    for item in items:
        if _LONG_VARIANTS.search(item.nodeid):
            item.add_marker(pytest.mark.slow)
