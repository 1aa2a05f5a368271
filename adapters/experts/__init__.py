"""LoRA experts over a frozen student, and the gates that weigh them."""
