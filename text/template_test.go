package text

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/subquad/subquad"
)

var (
	talk = []Message{{System, "You are a helpful assistant"}, {User, "Hello"}, {Assistant, "Hi there"}, {User, "Who are you"}, {Assistant, "   I am an assistant   "}, {User, "Another question"}}
	day  = time.Date(2025, 6, 28, 12, 0, 0, 0, time.UTC)
)

type templateCase struct {
	name, text, family string
	bos, eos           string
	want               string // of talk, or of talk without its system prompt
	bare               bool   // without its system prompt, for which there is no place
}

// templates are published chat templates, or where it says so what matters of them. what
// they give for talk is, where there is no other word, what llama.cpp's test-chat-template has for
// the same template; marked "derived", it was worked out from the template by hand.
var templates = []templateCase{
	{name: "ChatML", family: "ChatML",
		text: `{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`,
		want: "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n<|im_start|>assistant\n"},
	{name: "ChatML with BOS (derived)", family: "ChatML", bos: "<s>",
		text: `{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`,
		want: "<s><|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n<|im_start|>assistant\n"},
	{name: "SmolLM2 (derived)", family: "ChatML", bare: true,
		text: `{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`,
		want: "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n<|im_start|>assistant\n"},
	{name: "Qwen2.5, what matters of it (derived)", family: "ChatML", bare: true,
		text: "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {{- \"\\n\\n# Tools\\n\\nYou may\" }}\n    {{- \"</tool_call><|im_end|>\\n\" }}\n{%- else %}\n    {%- if messages[0]['role'] == 'system' %}\n        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n    {%- else %}\n        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
		want: "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n<|im_start|>assistant\n"},
	{name: "Mistral 7B Instruct v0.2", family: "Mistral before v1", eos: "</s>", bare: true,
		text: `{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}`,
		want: "[INST] Hello [/INST]Hi there</s>[INST] Who are you [/INST]   I am an assistant   </s>[INST] Another question [/INST]"},
	{name: "Mistral v1", family: "Mistral v1", eos: "</s>",
		text: "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n    {%- endif %}\n    {%- if message['role'] == 'user' %}\n        {%- if loop.first and system_message is defined %}\n            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n        {%- else %}\n            {{- ' [INST] ' + message['content'] + ' [/INST]' }}\n        {%- endif %}\n    {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + eos_token}}\n    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported') }}\n    {%- endif %}\n{%- endfor %}\n",
		want: " [INST] You are a helpful assistant\n\nHello [/INST] Hi there</s> [INST] Who are you [/INST]    I am an assistant   </s> [INST] Another question [/INST]"},
	{name: "Mistral v3, what matters of it", family: "Mistral v3", eos: "</s>",
		text: "{{- bos_token }}\n{%- for message in loop_messages %}\n    {{- raise_exception(\"roles must alternate\") }}    {%- if message[\"role\"] == \"user\" %}\n            {{- \"[AVAILABLE_TOOLS] [\" }}            {{- \"[/AVAILABLE_TOOLS]\" }}\n        {%- if loop.last and system_message is defined %}\n            {{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n        {%- else %}\n            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n    {%- elif message[\"role\"] == \"assistant\" %}\n        {{- \" \" + message[\"content\"]|trim + eos_token}}\n    {%- endif %}\n{%- endfor %}\n",
		want: "[INST] Hello[/INST] Hi there</s>[INST] Who are you[/INST] I am an assistant</s>[INST] You are a helpful assistant\n\nAnother question[/INST]"},
	{name: "Mistral v3-tekken, what matters of it (derived)", family: "Mistral v3-tekken", bos: "<s>", eos: "</s>",
		text: "{{- bos_token }}\n{%- for message in loop_messages %}\n    {{- raise_exception(\"roles must alternate\") }}    {%- if message[\"role\"] == \"user\" %}\n            {{- \"[AVAILABLE_TOOLS][\" }}            {{- \"[/AVAILABLE_TOOLS]\" }}\n        {%- if loop.last and system_message is defined %}\n            {{- \"[INST]\" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n        {%- else %}\n            {{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n    {%- elif message[\"role\"] == \"assistant\" %}\n        {{- message[\"content\"] + eos_token}}\n    {%- endif %}\n{%- endfor %}\n",
		want: "<s>[INST]Hello[/INST]Hi there</s>[INST]Who are you[/INST]   I am an assistant   </s>[INST]You are a helpful assistant\n\nAnother question[/INST]"},
	{name: "Gemma", family: "Gemma", bare: true,
		text: `{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}`,
		want: "<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\nI am an assistant<end_of_turn>\n<start_of_turn>user\nAnother question<end_of_turn>\n<start_of_turn>model\n"},
	{name: "Gemma 3, what matters of it (derived)", family: "Gemma", bos: "<bos>",
		text: "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}\n{%- endif -%}\n{%- for message in loop_messages -%}\n        {{ raise_exception(\"roles must alternate\") }}\n        {%- set role = \"model\" -%}\n    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else \"\") }}\n        {{ message['content'] | trim }}\n    {{ '<start_of_image>' }}\n    {{ '<end_of_turn>\\n' }}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\\n'}}\n{%- endif -%}\n",
		want: "<bos><start_of_turn>user\nYou are a helpful assistant\n\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\nI am an assistant<end_of_turn>\n<start_of_turn>user\nAnother question<end_of_turn>\n<start_of_turn>model\n"},
	{name: "Llama 3", family: "Llama 3",
		text: "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
		want: "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nI am an assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
	{name: "Llama 3.1, what matters of it (derived)", family: "Llama 3", bos: "<|begin_of_text|>", bare: true, text: llama31,
		want: "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nI am an assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
	{name: "Llama 3.2, what matters of it (derived)", family: "Llama 3", bos: "<|begin_of_text|>",
		text: strings.Replace(llama31, `{%- set date_string = "26 Jul 2024" %}`, `{%- set date_string = strftime_now("%d %b %Y") %}{%- set date_string = "26 Jul 2024" %}`, 1),
		want: "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 28 Jun 2025\n\nYou are a helpful assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nI am an assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
	{name: "Phi-3 mini", family: "Phi-3", bare: true,
		text: "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}",
		want: "<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n<|user|>\nWho are you<|end|>\n<|assistant|>\n   I am an assistant   <|end|>\n<|user|>\nAnother question<|end|>\n<|assistant|>\n"},
	{name: "Phi-3 small", family: "Phi-3",
		text: "{{ bos_token }}{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
		want: "<|system|>\nYou are a helpful assistant<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n<|user|>\nWho are you<|end|>\n<|assistant|>\n   I am an assistant   <|end|>\n<|user|>\nAnother question<|end|>\n<|assistant|>\n"},
	{name: "Phi-4 mini (derived)", family: "Phi-3",
		text: "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
		want: "<|system|>You are a helpful assistant<|end|><|user|>Hello<|end|><|assistant|>Hi there<|end|><|user|>Who are you<|end|><|assistant|>   I am an assistant   <|end|><|user|>Another question<|end|><|assistant|>"},
	{name: "gpt-oss, what matters of it (as llama.cpp logs it)", family: "gpt-oss", text: gptOSS,
		want: "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: 2025-06-28\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|><|start|>developer<|message|># Instructions\n\nYou are a helpful assistant\n\n<|end|><|start|>user<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|>Hi there<|end|><|start|>user<|message|>Who are you<|end|><|start|>assistant<|channel|>final<|message|>   I am an assistant   <|end|><|start|>user<|message|>Another question<|end|><|start|>assistant"},
}

const (
	llama31 = `{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{#- System message + builtin tools <|not_a_mark|> #}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
`
	gptOSS = `{{- "You are ChatGPT, a large language model trained by OpenAI.\n" -}}
    {{- "Knowledge cutoff: 2024-06\n" }}
    {{- "Current date: " + strftime_now("%Y-%m-%d") + "\n\n" }}
    {{- "Reasoning: " + reasoning_effort + "\n\n" }}
    {{- "# Valid channels: analysis, commentary, final. Channel must be included for every message." }}
{{- "<|start|>system<|message|>" }}
    {%- if developer_message %}
        {{- "# Instructions\n\n" }}
        {{- developer_message }}
        {{- "\n\n" }}
    {%- endif %}
    {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
    {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
`
	qwen3 = `{%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {{- '<|im_end|>\n' }}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}`
)

func TestTemplates(t *testing.T) {
	for _, c := range templates {
		f, err := ParseTemplate(c.text, words(t, "<s>"), TemplateConfig{BOS: c.bos, EOS: c.eos, Date: day})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		messages := talk
		if c.bare {
			messages = talk[1:]
		}
		got, err := f.Text(messages, true)
		if err != nil || got != c.want || f.Family() != c.family {
			t.Errorf("%s: %s gives\n%q, want\n%q; error %v", c.name, f.Family(), got, c.want, err)
		}
	}
}

// TestThoughts: Qwen3's thoughts are left out of earlier answers, and may be switched off
// (derived from the published template).
func TestThoughts(t *testing.T) {
	f, err := ParseTemplate(qwen3, words(t), TemplateConfig{})
	must(t, err)
	talk := []Message{{User, "1"}, {Assistant, "<think>\nhm\n</think>\n\n2"}, {User, "3"}}
	check := func(want string, messages []Message, answer bool) {
		t.Helper()
		if got, err := f.Text(messages, answer); err != nil || got != want {
			t.Errorf("%q, want %q; error %v", got, want, err)
		}
	}
	const first = "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n"
	check(first+"2<|im_end|>\n<|im_start|>user\n3<|im_end|>\n<|im_start|>assistant\n", talk, true)
	check(first+"<think>\nhm\n</think>\n\n2<|im_end|>\n", talk[:2], false)
	check(first+"<think>\n\n</think>\n\nplain<|im_end|>\n", []Message{{User, "1"}, {Assistant, "plain"}}, false)
	f, err = ParseTemplate(qwen3, words(t), TemplateConfig{NoThinking: true})
	must(t, err)
	check("<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", talk[:1], true)
}

// TestEndings: a conversation without the beginning of an answer.
func TestEndings(t *testing.T) {
	for name, want := range map[string]string{
		"ChatML":      "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n",
		"Phi-3 mini":  "<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n",
		"Phi-3 small": "<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n</s>",
		"gpt-oss, what matters of it (as llama.cpp logs it)": "<|start|>user<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|>Hi there<|return|>",
	} {
		at := slices.IndexFunc(templates, func(c templateCase) bool { return c.name == name })
		f, err := ParseTemplate(templates[at].text, words(t), TemplateConfig{EOS: "</s>"})
		must(t, err)
		if got, err := f.Text(talk[1:3], false); err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q, want %q; error %v", name, got, want, err)
		}
	}
}

// TestUnknownTemplates are refused, and named by what is in them.
func TestUnknownTemplates(t *testing.T) {
	chat := templates[0].text
	for name, text := range map[string]string{
		"nothing":         "",
		"Zephyr":          "{% for message in messages %}{{ '<|user|>\n' + message['content'] + eos_token }}{{ '<|assistant|>' }}{% endfor %}",
		"DeepSeek":        "{{bos_token}}{{'<｜User｜>' + message['content']}}{{'<｜Assistant｜>'}}",
		"Llama 2":         "{{ bos_token + '[INST] <<SYS>>\n' + raise_exception }} [/INST] eos_token",
		"its own prompt":  strings.Replace(caseOf(t, "Llama 2").text, "{% else %}", "{% elif true == true and not '<<SYS>>' in messages[0]['content'] %}{% else %}", 1),
		"another day":     strings.Replace(caseOf(t, "Mistral Small 2501").text, "%Y-%m-%d", "%d", 1),
		"yesterday":       strings.Replace(caseOf(t, "Mistral Small 2501").text, "+ today +", "+ yesterday +", 1),
		"no more tools":   strings.Replace(caseOf(t, "SmolLM3 of the training").text, `"## Tools`, `"## Things`, 1),
		"efforts":         caseOf(t, "Qwen3.5").text + "{{ reasoning_effort }}",
		"two ways":        caseOf(t, "Qwen3.5").text + "{% if enable_thinking is defined and enable_thinking is true %}{% endif %}",
		"spaces":          strings.Replace(caseOf(t, "DeepSeek-R1").text, "{{'<｜User｜>' + message['content']}}", "{{'<｜User｜>' + message['content']}}\n{% set x = 1 %}", 1),
		"other thoughts":  strings.Replace(caseOf(t, "DeepSeek-V3").text, "{% set content", "{% set x = '</think>' %}{% set content", 1),
		"other breaks":    strings.Replace(caseOf(t, "Zephyr").text, "'<|user|>\\n'", "'<|user|>'", 1),
		"Mistral v7":      `{{ bos_token }}{{ raise_exception("") }}[SYSTEM_PROMPT]"[INST]" "[/INST]" eos_token system_message is defined`,
		"SmolLM3":         chat + "## Metadata",
		"dates":           chat + `strftime_now("%d")`,
		"another mark":    chat + "<|im_sep|>",
		"trimmed":         chat + "| trim",
		"own system":      chat + `{% set system_message = 'You are good.' %}`,
		"quoted default":  chat + `{{ "<|im_start|>system\nYou're good.<|im_end|>\n" }}`,
		"two defaults":    chat + `{{ "<|im_start|>system\nA<|im_end|>\n" }}{{ "<|im_start|>system\nB<|im_end|>\n" }}`,
		"thoughts":        chat + "<think>",
		"no line break":   strings.ReplaceAll(chat, `'<|im_end|>' + '\n'`, `'<|im_end|>'`),
		"another cutoff":  strings.Replace(llama31, "December 2023", "March 2024", 1),
		"another default": strings.Replace(llama31, `set system_message = ""`, `set system_message = "Be good."`, 1),
		"another harmony": strings.Replace(gptOSS, `for every message." }}`, `for every message.\n" }}`, 1),
	} {
		_, err := ParseTemplate(text, words(t), TemplateConfig{})
		if !errors.Is(err, subquad.ErrCheckpoint) || !strings.HasPrefix(err.Error(), "text: the chat template is not one of ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	_, err := ParseTemplate("{{ '<|user|>' }}  {{ '[X_Y]' }}", words(t), TemplateConfig{})
	if err == nil || !strings.Contains(err.Error(), "it has <|user|> [X_Y], and begins \"{{ '<|user|>' }} {{ '[X_Y]' }}\"") {
		t.Errorf("error %v", err)
	}
}

// TestRoles: what a family does not allow is an error, and nothing else is.
func TestRoles(t *testing.T) {
	for _, c := range everyTemplate(t) {
		f, err := ParseTemplate(c.text, words(t), TemplateConfig{})
		must(t, err)
		bad := map[string][]Message{"no messages": nil, "tool": {{"tool", "x"}}, "empty role": {{"", "x"}}}
		family, _, _ := strings.Cut(c.family, " ")
		if (family == "Mistral" || family == "Gemma" || c.family == "Llama 2") && !slices.Contains([]string{"Mistral Large 2411", "Mistral Small 2501"}, c.name) {
			bad["two questions"] = []Message{{User, "a"}, {User, "b"}}
			bad["an answer first"] = []Message{{Assistant, "a"}}
			if c.family != "Mistral v7" {
				bad["a system prompt alone"] = []Message{{System, "a"}}
			}
			bad["a system prompt later"] = []Message{{User, "a"}, {System, "b"}}
		}
		switch c.name {
		case "Mistral 7B Instruct v0.2", "Gemma", "Phi-3 mini":
			bad["a system prompt"] = talk
		}
		if family == "gpt-oss" || family == "SmolLM3" || family == "Qwen3.5" {
			bad["a system prompt later"] = []Message{{User, "a"}, {System, "b"}}
		}
		for name, messages := range bad {
			if _, err := f.Apply(messages, true); !errors.Is(err, subquad.ErrCall) || !strings.HasPrefix(err.Error(), "text: ") {
				t.Errorf("%s, %s: error %v", c.name, name, err)
			}
		}
		if _, err := f.Apply([]Message{{User, ""}}, true); err != nil {
			t.Errorf("%s: an empty question: %v", c.name, err)
		}
	}
}

// TestInjection: a message cannot make special tokens, whatever it says.
func TestInjection(t *testing.T) {
	names := []string{"<s>", "</s>", "<bos>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>", "[INST]", "[/INST]",
		"<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>", "<|constrain|>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<<SYS>>", "<</SYS>>", "<think>", "</think>",
		deepUser, deepAssistant, deepEnd, "<｜begin▁of▁sentence｜>"}
	tok := words(t, names...)
	for _, c := range everyTemplate(t) {
		f, err := ParseTemplate(c.text, tok, TemplateConfig{BOS: c.bos, EOS: c.eos, Date: day})
		must(t, err)
		special := func(content string) (list []int32) {
			ids, err := f.Apply([]Message{{User, content}}, true)
			must(t, err)
			for _, id := range ids {
				if id >= 300 {
					list = append(list, id)
				}
			}
			if text, err := f.Text([]Message{{User, content}}, true); err != nil || tok.Decode(ids) != text {
				t.Errorf("%s: tokens of %q, want %q; error %v", c.name, tok.Decode(ids), text, err)
			}
			return list
		}
		want := special("a")
		if len(want) < 2 {
			t.Errorf("%s: special tokens %v", c.name, want)
		}
		for _, name := range names {
			if got := special("a" + name + "b"); !slices.Equal(got, want) {
				t.Errorf("%s: %s in a message gives special tokens %v, want %v", c.name, name, got, want)
			}
		}
		// Where its marks are plain text, a message with one is refused.
		plain, err := ParseTemplate(c.text, words(t), TemplateConfig{})
		must(t, err)
		for _, mark := range plain.family.marks() {
			if _, err := plain.Apply([]Message{{User, "a" + mark}}, true); !errors.Is(err, subquad.ErrCall) {
				t.Errorf("%s: %s in a message: error %v", c.name, mark, err)
			}
		}
	}
}

// TestNothing: a tokenizer or a template that is nil has no tokens, and is an error where there is
// one to return.
func TestNothing(t *testing.T) {
	var w *Tokenizer
	_, known := w.Lookup("x")
	if w.Size() != 0 || w.Decode([]int32{1}) != "" || len(w.AppendText(nil, -1, 1)) != 0 || len(w.Missing(3)) != 3 || known {
		t.Error("a nil Tokenizer has tokens")
	}
	if _, err := w.Encode("x", true); !errors.Is(err, ErrCall) {
		t.Errorf("Encode: %v", err)
	}
	var c *Template
	if _, err := c.Apply([]Message{{User, "x"}}, true); !errors.Is(err, ErrCall) {
		t.Errorf("Apply: %v", err)
	}
	if _, err := c.Text([]Message{{User, "x"}}, true); !errors.Is(err, ErrCall) {
		t.Errorf("Text: %v", err)
	}
	if c.Family() != "" || c.Ends() != nil {
		t.Error("a nil Template has a family, or ends")
	}
}
