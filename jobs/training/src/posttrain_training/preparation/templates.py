"""Chat templates of ours, for models that have none or another one than is wanted."""

from collections.abc import Mapping
from types import MappingProxyType

from posttrain_contract.examples import Template

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{{- message['content'] + '<|im_end|>' -}}
{%- if eos_token != '<|im_end|>' -%}{{- eos_token -}}{%- endif -%}
{%- endgeneration -%}
{{- '\\n' -}}
{%- else -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_LLAMA2 = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- ' ' + message['content'] + ' ' + eos_token -}}{%- endgeneration -%}
{%- else -%}
{{- (bos_token or '') + '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
_ALPACA = """\
{%- if messages[0]['role'] == 'system' -%}
{{- messages[0]['content'] + '\\n\\n' -}}
{%- set turns = messages[1:] -%}
{%- else -%}
{{- 'Below is an instruction that describes a task. ' -}}
{{- 'Write a response that appropriately completes the request.\\n\\n' -}}
{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if message['role'] == 'assistant' -%}
{{- '### Response:\\n' -}}
{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}
{{- '\\n\\n' -}}
{%- else -%}
{{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
"""

TEMPLATES: Mapping[Template, str] = MappingProxyType({"chatml": _CHATML, "llama2": _LLAMA2, "alpaca": _ALPACA})
"""Jinja templates by name. Each ends an answer with the tokenizer's end token, whatever that is, so that generation
stops there; ``{% generation %}`` marks what a model writes, for readers of the published model."""
