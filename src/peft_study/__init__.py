"""peft_study: how do parameter-efficient fine-tuning methods compare with full fine-tuning?"""
