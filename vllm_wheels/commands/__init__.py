"""The subcommands of ``vllm-wheels``, a module each."""
