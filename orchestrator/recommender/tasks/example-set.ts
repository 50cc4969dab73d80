/**
 * Training examples of all tasks, as the tensors of `train_examples`.
 *
 * 1. An example is one sequence, or a group of several of which the first is preferred to each of the others.
 * 2. The prompt's tokens are not labels and the answer's are: known by where the parts meet, never by tokenizing again.
 * 3. With the sequential task alone the file has neither `tasks` nor `groups`.
 */
import { int64 } from '../dataset.js';
import { PackedSequences } from '../packed-sequences.js';
import { type Tensor } from '../safetensors.js';
import { TASK_NAMES, type TaskName } from './task-recipes.js';

export interface TaskCounts extends Record<string, number> {
  examples: number;
  tokens: number;
  labels: number;
}

export interface SequenceParts {
  prompt: ArrayLike<number>[];
  answer: ArrayLike<number>[];
}

export class ExampleSet {
  private readonly packed = new PackedSequences();
  /** First label and end of the labels of every sequence: its end. */
  private readonly answerStarts: number[] = [];
  private readonly tasks: number[] = [];
  private readonly groups: number[] = [0];
  private readonly perTask = new Map<TaskName, TaskCounts>();

  add(task: TaskName, ...sequences: SequenceParts[]): void {
    const counts = this.perTask.get(task) ?? { examples: 0, tokens: 0, labels: 0 };
    this.perTask.set(task, counts);
    for (const { prompt, answer } of sequences) {
      const before = this.packed.tokenCount;
      this.packed.push(...prompt, ...answer);
      const labels = answer.reduce((sum, part) => sum + part.length, 0);
      this.answerStarts.push(this.packed.tokenCount - labels);
      counts.tokens += this.packed.tokenCount - before;
      counts.labels += labels;
    }
    counts.examples += 1;
    this.tasks.push(TASK_NAMES.indexOf(task));
    this.groups.push(this.packed.sequences);
  }

  get examples(): number {
    return this.tasks.length;
  }

  get tokens(): number {
    return this.packed.tokenCount;
  }

  /** By task, in the order of the tasks; those without an example are left out. */
  counts(): Partial<Record<TaskName, TaskCounts>> {
    return Object.fromEntries(
      TASK_NAMES.flatMap((task) => {
        const counts = this.perTask.get(task);
        return counts === undefined ? [] : [[task, counts]];
      }),
    );
  }

  tensors(): { tensors: Record<string, Tensor>; metadata: Record<string, string> } {
    const { tokens, offsets } = this.packed.tensors();
    const mask = new Uint8Array(this.packed.tokenCount);
    this.answerStarts.forEach((start, i) => mask.fill(1, start, Number(offsets.data[i + 1] ?? start)));
    const tensors: Record<string, Tensor> = {
      tokens,
      offsets,
      label_mask: { shape: [mask.length], data: mask },
    };
    if (this.perTask.size === 1 && this.perTask.has('sequential')) return { tensors, metadata: {} };
    tensors['tasks'] = { shape: [this.tasks.length], data: Uint8Array.from(this.tasks) };
    if (this.packed.sequences > this.examples) {
      tensors['groups'] = { shape: [this.groups.length], data: int64(this.groups) };
    }
    return { tensors, metadata: { tasks: TASK_NAMES.join(' ') } };
  }
}
