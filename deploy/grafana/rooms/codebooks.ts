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
    {
      title: 'Evenness',
      description: 'Gini coefficient of the use of the codes of a level: 0 when all are used alike.',
      kind: 'bars',
      unit: 'percentunit',
      queries: [{ expr: 'max by (level) (collimate_codebook_gini_ratio{run=~"$run"})', legend: 'level {{level}}' }],
      next: 'collimate-run',
    },
    {
      title: 'Error',
      description:
        'Squared error of the decoded vectors over their squared norm. Far larger on held-out items: too few items a code.',
      kind: 'bars',
      unit: 'percentunit',
      queries: [{ expr: 'max by (items) (collimate_codebook_error_ratio{run=~"$run"})', legend: '{{items}}' }],
      next: 'collimate-run',
    },
    {
      title: 'Text found by its item',
      description:
        'Items whose own text is among the first of all texts by their codes, before and after the alignment.',
      kind: 'bars',
      unit: 'percentunit',
      queries: [
        {
          expr: 'max by (moment, cutoff) (collimate_alignment_recall_ratio{run=~"$run"})',
          legend: '{{moment}}, first {{cutoff}}',
        },
      ],
      next: 'collimate-run',
    },
  ],
};
