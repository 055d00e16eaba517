"""Keys of the layout's files that are accepted unread, because they do not change what the model computes."""

from __future__ import annotations

PRETRAINED = (
    "_name_or_path", "name_or_path", "_commit_hash", "_attn_implementation*", "attn_implementation",
    "_experts_implementation*", "transformers_version", "auto_map", "torch_dtype", "dtype", "architectures",
    "torchscript", "use_bfloat16", "tf_legacy_loss", "return_dict", "use_return_dict", "output_hidden_states",
    "output_attentions", "chunk_size_feed_forward", "is_encoder_decoder", "is_decoder", "cross_attention_hidden_size",
    "add_cross_attention", "tie_encoder_decoder", "max_length", "min_length", "do_sample", "early_stopping",
    "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p",
    "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "finetuning_task", "id2label", "label2id", "num_labels", "tokenizer_class", "prefix", "bos_token_id",
    "pad_token_id", "sep_token_id", "decoder_start_token_id", "task_specific_params", "problem_type",
    "gradient_checkpointing", "use_cache", "initializer_range", "initializer_factor",
)  # fmt: skip
"""What transformers 4 and 5 write into any model's configuration: storage, generation defaults, labels, versions."""

VITA_TRAINING = (
    "freeze_*", "unfreeze_*", "tune_*", "pretrain_*", "*_lr", "audio_state_predictor_tuning", "continuous_training",
    "tokenizer_*", "model_max_length", "max_sequence_length", "sliding_window", "max_window_layers",
)  # fmt: skip
"""Switches of the release's trainer, and the window that `use_sliding_window: false` leaves unused."""

CLIP_PREPROCESSOR = (
    "_valid_processor_keys", "auto_map", "processor_class", "data_format", "input_data_format", "default_to_square",
    "device", "disable_grouping", "return_tensors", "feature_extractor_type", "image_processor_type",
    "image_seq_length",
)  # fmt: skip
"""How the processor class is found and how it returns arrays."""

WENET_TRAINING = (
    "accum_grad", "cmvn", "cmvn_conf", "cmvn_file", "ctc", "ctc_conf", "data_type", "dataset", "decoder",
    "decoder_conf", "dtype", "encoder", "eval_interval", "grad_clip", "init_infos", "init_step", "joint_conf",
    "lfmmi_dir", "lm_conf", "log_interval", "loss_conf", "max_epoch", "model", "model_dir", "num_workers", "optim",
    "optim_conf", "optim_groups", "output_dim", "predictor", "predictor_conf", "prefetch", "save_interval",
    "save_states", "scheduler", "scheduler_conf", "seed", "step", "epoch", "tag", "timeout", "tokenizer",
    "tokenizer_conf", "train_engine", "use_amp", "use_lora", "vocab_size", "freeze_*", "*_lr", "llm_conf",
)  # fmt: skip
"""Top-level keys of a wenet-style `train.yaml`: optimizer, schedule, data loading, and the parts that are not used."""

WENET_DATASET = (
    "batch_*", "filter_conf", "shuffle*", "sort*", "spec_*", "speed_perturb*", "split_*", "cat_*", "cycle",
    "add_noise*", "add_rir*", "reverb*", "volume_*", "max_*", "min_*", "data_type", "lang_conf", "list_shuffle*",
    "token_*", "eod_id", "resample",
)  # fmt: skip
"""Augmentation and batching."""

AUDIO_MODEL_TRAINING = (
    "llm_path", "freeze_*", "IGNORE_ID", "task_num", "task_before_audio", "task_type", "chat_template",
    "audio_prompt_finetune", "audio_prompt_num", "lsm_weight", "ctc_weight", "length_normalized_loss",
    "reverse_weight",
)  # fmt: skip
"""The audio model's training switches; the audio prompts are switched by `config.json`, which overrides these."""

SPEECH_DECODER_TRAINING = (
    "encoder_pre_norm_type", "encoder_drop_rate", "encoder_criterion", "encoder_layer_config", "encoder_input_dim",
    "subsampling_*", "mamba_*", "transformer_input_dim", "transformer_output_dim", "transformer_attention_dropout_rate",
    "transformer_positional_dropout_rate", "transformer_input_layer", "transformer_pos_enc_class",
    "transformer_normalize_before", "transformer_concat_after", "transformer_positionwise_*", "transformer_chunk_size",
    "transformer_left_chunks", "transformer_dynamic_chunks", "accum_grad", "batch_*", "backend", "bprop_*", "cmvn*",
    "config*", "criterion", "dataset*", "debug*", "decoder_*", "dict", "early_stop*", "epochs", "eps*", "grad_*",
    "initializer", "ignore_id", "log_*", "lr*", "max_*", "maxlen*", "minibatches", "min_*", "model_module", "mtlalpha",
    "n_iter_processes", "ngpu", "num_*", "opt*", "outdir", "patience", "preprocess_*", "report_*", "resume",
    "save_*", "seed", "sort*", "tensorboard*", "threshold", "train_*", "use_*", "valid_*", "verbose", "warmup_*",
    "weight_decay", "world_size",
)  # fmt: skip
"""Arguments of the decoder's trainer (an ESPnet-style namespace): the released decoder reads none of them."""

CODEC_TRAINING = (
    "num_gpus", "batch_size", "learning_rate", "adam_*", "lr_decay", "seed", "segment_size", "num_mels", "num_freq",
    "n_fft", "hop_size", "win_size", "fmin", "fmax", "fmax_for_loss", "num_workers", "dist_config",
    "codebook_loss_lambda", "commitment_loss_lambda", "global_feature_conv", "warmup_*", "training_epochs",
    "checkpoint_*", "stdout_interval", "summary_interval", "validation_interval",
)  # fmt: skip
"""HiFi-GAN's training settings, and the codec encoder's (speech is only decoded here)."""
