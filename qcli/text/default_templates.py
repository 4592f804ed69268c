"""Chat templates for files that bring none, chosen by a control token of their vocabulary; the published formats.

No thinking, no tools: what a plain conversation needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qcli.text.tokenizer import Tokenizer

CHATML: Final = """\
{% for message in messages %}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %}
"""

# The system message goes before the first user's; the assistant is called model.
_GEMMA: Final = """\
{{ bos_token }}
{%- set ns = namespace(before='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- set ns.before = message.content + '\n\n' %}
{%- else %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
{{- ns.before + message.content + '<end_of_turn>\n' }}
{%- set ns.before = '' %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\n' }}
{%- endif %}
"""

# Its answers begin with a thought, which is empty here.
_GEMMA4: Final = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' + message.content + '<turn|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|turn>model\n<|channel>thought\n<channel|>' }}
{%- endif %}
"""

_LLAMA3: Final = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

_GRANITE: Final = """\
{%- for message in messages %}
{{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content + '<|end_of_text|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_of_role|>assistant<|end_of_role|>' }}
{%- endif %}
"""

_GLM: Final = """\
{{- '[gMASK]<sop>' }}
{%- for message in messages %}
{{- '<|' + message.role + '|>\n' + message.content }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""

_DEEPSEEK: Final = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}
{{- '<｜User｜>' + message.content }}
{%- elif message.role == 'assistant' %}
{{- '<｜Assistant｜>' + message.content + eos_token }}
{%- else %}
{{- message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<｜Assistant｜>' }}
{%- endif %}
"""

# The model was never without a system message that names the channels.
_HARMONY: Final = """\
{{- '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n' }}
{{- 'Knowledge cutoff: 2024-06\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: medium\n\n' }}
{{- '# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>' }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
{%- elif message.role == 'system' %}
{{- '<|start|>developer<|message|># Instructions\n\n' + message.content + '\n\n<|end|>' }}
{%- else %}
{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start|>assistant' }}
{%- endif %}
"""

_BY_TOKEN: Final = {
    "<|im_start|>": CHATML,
    "<start_of_turn>": _GEMMA,
    "<|turn>": _GEMMA4,
    "<|start_header_id|>": _LLAMA3,
    "<|start_of_role|>": _GRANITE,
    "[gMASK]": _GLM,
    "<｜User｜>": _DEEPSEEK,
    "<|channel|>": _HARMONY,
}


def default_template(tokenizer: Tokenizer) -> str:
    """The template of the family that the vocabulary's control tokens are of, or ChatML."""
    return next((source for token, source in _BY_TOKEN.items() if tokenizer.special_id(token) is not None), CHATML)
