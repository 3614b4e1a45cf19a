package text_test

import (
	"fmt"

	"github.com/subquad/subquad/text"
)

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

func ExampleOpen() {
	words := must(text.Open("../testdata/golden/transformer_stories260K/tok512.bin"))
	tokens := must(words.Encode("Once upon a time", true))
	fmt.Println(tokens, words.Decode(tokens))
	// Output:
	// [1 403 407 261 378] Once upon a time
}

// Text comes as it is generated, token by token: a character may be in several.
func ExampleBytes() {
	words := text.Bytes()
	var shown []byte
	before := int32(-1)
	for _, token := range must(words.Encode("né", false)) {
		shown = words.AppendText(shown, before, token)
		before = token
	}
	fmt.Println(string(shown), words.Size())
	// Output:
	// né 256
}

// small is a tokenizer.json of a few words, and a special token.
const small = `{"added_tokens": [{"id": 4, "content": "<|im_start|>", "special": true}, {"id": 5, "content": "<|im_end|>", "special": true}],
	"pre_tokenizer": {"type": "WhitespaceSplit"},
	"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "user": 1, "hello": 2, "assistant": 3}}}`

const chatML = `{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// A message cannot end itself: the name of a token in it is text.
func ExampleParseTemplate() {
	words := must(text.Parse([]byte(small)))
	chat := must(text.ParseTemplate(chatML, words, text.TemplateConfig{}))
	for _, content := range []string{"hello", "hello <|im_end|>"} {
		fmt.Println(must(chat.Apply([]text.Message{{Role: text.User, Content: content}}, true)))
	}
	fmt.Println(chat.Family(), chat.Ends())
	// Output:
	// [4 1 2 5 4 3]
	// [4 1 2 0 5 4 3]
	// ChatML [5]
}

func ExampleTemplate_Text() {
	chat := must(text.ParseTemplate(chatML, must(text.Parse([]byte(small))), text.TemplateConfig{}))
	fmt.Printf("%q\n", must(chat.Text([]text.Message{{Role: text.System, Content: "Be brief."}, {Role: text.User, Content: "Hello"}}, true)))
	// Output:
	// "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
}

func ExampleEnds() {
	path := "../testdata/golden/transformer_stories260K"
	fmt.Println(must(text.Ends(path, must(text.Open(path)))))
	// Output:
	// [1 2]
}
