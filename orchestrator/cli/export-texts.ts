/** The small files of an exported model: settings of the tokenizer, and how to load what is there. */
import { type JsonObject } from '../../workflows/contract.js';
import { SPECIAL_TOKENS } from '../recommender/tokenizer-training.js';

/** What a base's tokenizer settings say about its use. The rest says how to build it, which tokenizer.json does. */
const KEPT_SETTINGS = [
  ...['bos_token', 'eos_token', 'pad_token', 'unk_token', 'additional_special_tokens', 'chat_template'],
  ...['model_max_length', 'padding_side', 'clean_up_tokenization_spaces'],
];

/** `tokenizer_config.json`: the class that takes tokenizer.json as it is, item tokens included. */
export function tokenizerConfigOf({ base, isScratch }: { base: JsonObject | null; isScratch: boolean }): JsonObject {
  const { bos, eos, pad } = SPECIAL_TOKENS;
  const kept: [string, JsonObject[string]][] = KEPT_SETTINGS.flatMap((name) => {
    const value = base?.[name];
    return value === undefined ? [] : [[name, value]];
  });
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...(isScratch ? { bos_token: bos, eos_token: eos, pad_token: pad } : Object.fromEntries(kept)),
  };
}

export interface ExportDescription {
  form: 'adapter' | 'model';
  /** Its last name only: a folder may be moved. */
  folder: string;
  vocabularySize: number;
  baseName: string | null;
  model: string;
  runId: string;
}

export function readmeOf(about: ExportDescription): string {
  const { form, folder, vocabularySize, model, runId } = about;
  const what =
    form === 'adapter'
      ? `A LoRA adapter for PEFT, with the token rows of ${vocabularySize} tokens: those of the base and the items'. The base has to ` +
        'have rows for all of them before the adapter is put on:'
      : 'A whole model: plain weights in fp32, adapters (if there were any) added in:';
  return [
    `# ${runId}`,
    '',
    what,
    '',
    '```python',
    ...loadingLines(about),
    '```',
    '',
    `The tokenizer is the base's with one token per code of the semantic ids (\`<a_0>\`, …) appended. Made by \`collimate export\` from the`,
    `run's tuned model, SHA-256 \`${model}\`; \`${folder}\` stands for this folder.`,
    '',
  ].join('\n');
}

/** The Python that loads the folder, from the folder that holds it. */
export function loadingLines({ form, folder, vocabularySize, baseName }: ExportDescription): string[] {
  const name = JSON.stringify(folder);
  const tokenizer = `tokenizer = AutoTokenizer.from_pretrained(${name})`;
  if (form === 'model') {
    return [
      'from transformers import AutoModelForCausalLM, AutoTokenizer',
      '',
      `model = AutoModelForCausalLM.from_pretrained(${name})`,
      tokenizer,
    ];
  }
  return [
    'import torch',
    'from peft import PeftModel',
    'from transformers import AutoModelForCausalLM, AutoTokenizer',
    '',
    `base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(baseName ?? 'BASE')}, dtype=torch.float32)`,
    `base.resize_token_embeddings(${vocabularySize}, mean_resizing=False)`,
    `model = PeftModel.from_pretrained(base, ${name})`,
    tokenizer,
  ];
}
