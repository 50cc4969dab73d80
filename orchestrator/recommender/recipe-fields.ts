/** Checked access to the fields of a recipe: a missing or wrong field is bad input that names it. */
import { type Json, type JsonObject } from '../../workflows/contract.js';
import { BadInputError } from './domain-job.js';

export class RecipeFields {
  /** `kind` names the recipe in errors. */
  constructor(
    private readonly kind: string,
    private readonly recipe: JsonObject,
  ) {}

  integer(name: string, range: { min: number; max?: number }): number {
    const value = this.recipe[name];
    const max = range.max ?? Number.MAX_SAFE_INTEGER;
    if (typeof value === 'number' && Number.isInteger(value) && value >= range.min && value <= max) return value;
    return this.fail(name, `an integer ≥ ${range.min}${range.max === undefined ? '' : ` and ≤ ${range.max}`}`, value);
  }

  number(name: string, range: { min: number }): number {
    const value = this.recipe[name];
    if (typeof value === 'number' && value >= range.min) return value;
    return this.fail(name, `a number ≥ ${range.min}`, value);
  }

  oneOf<T extends string>(name: string, choices: readonly T[]): T {
    const value = this.recipe[name];
    const found = choices.find((choice) => choice === value);
    return found ?? this.fail(name, `one of ${choices.join(', ')}`, value);
  }

  strings(name: string): string[] {
    const value = this.recipe[name];
    const isText = (entry: Json): entry is string => typeof entry === 'string' && entry !== '';
    if (Array.isArray(value) && value.length > 0 && value.every(isText)) return value;
    return this.fail(name, 'a list of one or more non-empty strings', value);
  }

  /** A non-empty list of numbers within the range. */
  numbers(name: string, range: { min: number; integer?: boolean }): number[] {
    const value = this.recipe[name];
    const fits = (entry: Json): entry is number =>
      typeof entry === 'number' && entry >= range.min && (range.integer !== true || Number.isInteger(entry));
    if (Array.isArray(value) && value.length > 0 && value.every(fits)) return value;
    return this.fail(
      name,
      `a list of one or more ${range.integer === true ? 'integers' : 'numbers'} ≥ ${range.min}`,
      value,
    );
  }

  section(name: string): RecipeFields {
    const value = this.recipe[name];
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return new RecipeFields(`${this.kind}.${name}`, value);
    }
    return this.fail(name, 'an object', value);
  }

  private fail(name: string, expected: string, value: Json | undefined): never {
    const came = value === undefined ? 'nothing' : JSON.stringify(value);
    throw new BadInputError(`${this.kind}.${name}: expected ${expected}, got ${came}`);
  }
}
