/** Do the semantic ids tell the items apart? */
import type { Room } from '../room.js';

export const codebooks: Room = {
  uid: 'collimate-codebooks',
  title: 'Collimate / Codebooks',
  description: 'The cascaded codebooks of a run, level by level.',
  variables: ['run'],
  panels: [
    {
      title: 'Usage',
      description: 'Share of the codes of a level that some item has. Far below 1: fewer codes, or more iterations.',
      kind: 'bars',
      unit: 'percentunit',
      queries: [{ expr: 'max by (level) (collimate_codebook_usage_ratio{run=~"$run"})', legend: 'level {{level}}' }],
      next: 'collimate-run',
    },
    {
      title: 'Perplexity',
      description: 'How evenly items spread over the codes of a level; at most the number of codes.',
      kind: 'bars',
      unit: 'short',
      queries: [{ expr: 'max by (level) (collimate_codebook_perplexity{run=~"$run"})', legend: 'level {{level}}' }],
      next: 'collimate-run',
    },
    {
      title: 'Dead codes',
      description: 'Codes that no item has.',
      kind: 'bars',
      unit: 'short',
      queries: [{ expr: 'max by (level) (collimate_codebook_dead_codes{run=~"$run"})', legend: 'level {{level}}' }],
      next: 'collimate-run',
    },
    {
      title: 'Collisions',
      description: 'Items whose codes another item shared before the last level told them apart.',
      kind: 'stat',
      unit: 'percentunit',
      queries: [{ expr: 'max by (run) (collimate_codebook_collision_ratio{run=~"$run"})', legend: '{{run}}' }],
      next: 'collimate-run',
    },
  ],
};
