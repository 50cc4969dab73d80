import { describe, expect, it } from 'vitest';
import { defaultRecipes } from './default-recipes.js';
import { resolveRecipes } from './resolve-recipes.js';

describe('resolveRecipes', () => {
  it('gives the defaults without overrides, in fresh copies', () => {
    expect(resolveRecipes()).toEqual(defaultRecipes());
    expect(resolveRecipes().render.tasks.text.templates).not.toBe(resolveRecipes().render.tasks.text.templates);
  });

  it('overrides single fields and hands the common seed to every kind', () => {
    const recipes = resolveRecipes({ seed: 5, codebooks: { codes: 256 }, dccf: { seed: 6 } });
    expect(recipes.codebooks).toEqual({ ...defaultRecipes(5).codebooks, codes: 256 });
    expect([recipes.simulate?.seed, recipes.dccf.seed, recipes.tune.seed, recipes.render.seed]).toEqual([5, 6, 5, 5]);
  });

  it('merges single fields of single tasks', () => {
    const { tasks } = resolveRecipes({ render: { tasks: { query: { weight: 2 } } } }).render;
    const defaults = defaultRecipes().render.tasks;
    expect(tasks).toEqual({ ...defaults, query: { ...defaults.query, weight: 2 } });
    expect(() => resolveRecipes({ render: { tasks: { queries: {} } } } as never)).toThrow(
      /render\.tasks: unknown field 'queries'; expected one of sequential, text/,
    );
    expect(() => resolveRecipes({ render: { tasks: { text: { negatives: 2 } } } } as never)).toThrow(
      /render\.tasks\.text: unknown field 'negatives'/,
    );
  });

  it('switches optional parts off', () => {
    expect(resolveRecipes({ simulate: null, textVectors: null, dense: null })).toMatchObject({
      simulate: null,
      textVectors: null,
      dense: null,
    });
  });

  it('asks for validation prompts for the users that fusion is fitted on, and for none without fusion', () => {
    expect(resolveRecipes({ fusion: { validationUsers: 7 } }).render.validationPrompts).toBe(7);
    expect(resolveRecipes({ fusion: null })).toMatchObject({ fusion: null, render: { validationPrompts: 0 } });
  });

  it('merges the scratch base and brings adapter settings for a Hugging Face base', () => {
    expect(resolveRecipes({ tune: { base: { kind: 'scratch', layers: 2 } } }).tune.base).toMatchObject({
      layers: 2,
      dim: 128,
    });
    const tuned = resolveRecipes({
      tune: { base: { kind: 'huggingface' }, trainable: { kind: 'lora', rank: 4 } },
    }).tune;
    expect(tuned.base).toEqual({ kind: 'huggingface' });
    expect(tuned.trainable).toMatchObject({ kind: 'lora', rank: 4, alpha: 16 });
    expect(tuned.learningRate).toBe(5e-4);
  });

  it('refuses a misspelt key and names the known ones', () => {
    const misspelt = { codebooks: { code: 256 } } as never;
    expect(() => resolveRecipes(misspelt)).toThrow(/codebooks: unknown field 'code'; expected one of levels, codes/);
    expect(() => resolveRecipes({ tunes: {} } as never)).toThrow(/recipes: unknown field 'tunes'/);
    expect(() => resolveRecipes({ tune: { base: { kind: 'scratch', width: 3 } } } as never)).toThrow(
      /tune\.base: unknown/,
    );
  });

  it('leaves the autoencoder out unless it is named', () => {
    expect(resolveRecipes().rqvae).toBeNull();
    expect(resolveRecipes({ rqvae: null }).rqvae).toBeNull();
    expect(resolveRecipes({ rqvae: { latentDim: 16 } }).rqvae).toMatchObject({ latentDim: 16, commitmentWeight: 0.25 });
  });

  it('leaves the alignment out until one of its weights is above 0', () => {
    expect(resolveRecipes().alignment).toBeNull();
    expect(resolveRecipes({ alignment: { steps: 10 } }).alignment).toBeNull();
    expect(resolveRecipes({ alignment: { weight: 0.1 } }).alignment).toMatchObject({ weight: 0.1, temperature: 0.07 });
    expect(resolveRecipes({ alignment: { prefixWeight: 0.1 } }).alignment).toMatchObject({ initialiseTokens: true });
    expect(() => resolveRecipes({ alignment: { weights: 1 } } as never)).toThrow(/codebooks\.alignment: unknown/);
  });

  it('is plain JSON', () => {
    expect(JSON.parse(JSON.stringify(resolveRecipes()))).toEqual(resolveRecipes());
  });
});
