/** How is one run doing, and when will it be done? */
import type { Room } from '../room.js';

export const run: Room = {
  uid: 'collimate-run',
  title: 'Collimate / Run',
  description: 'One run: where it is, where its time went, and what it has learned.',
  variables: ['run'],
  panels: [
    {
      title: 'Goodput',
      description: "Share of the run's time so far that was work. Below a half: see GoodputLow in docs/operations.md.",
      kind: 'stat',
      unit: 'percentunit',
      queries: [{ expr: 'collimate:run_goodput:ratio{run=~"$run"}', legend: '{{run}}' }],
      width: 6,
      next: 'collimate-recovery',
    },
    {
      title: 'Left of this stage',
      description: 'Steps to go at the pace of the last minutes. Other stages follow.',
      kind: 'stat',
      unit: 's',
      queries: [{ expr: 'collimate:stage_remaining:seconds{run=~"$run"}', legend: '{{stage}}' }],
      width: 6,
      next: 'collimate-stage',
    },
    {
      title: 'Numerics class',
      description: 'What the run was pinned to.',
      kind: 'stat',
      unit: 'none',
      queries: [{ expr: 'collimate_run_info{run=~"$run"}', legend: '{{name}} {{numerics_class}}' }],
      width: 6,
      next: 'collimate-fleet',
    },
    {
      title: 'Running for',
      description: 'Since this controller first saw the run.',
      kind: 'stat',
      unit: 's',
      queries: [
        { expr: 'time() - max by (run) (collimate_run_start_timestamp_seconds{run=~"$run"})', legend: '{{run}}' },
      ],
      width: 6,
      next: 'collimate-recovery',
    },
    {
      title: 'Stages',
      description: 'The state of each stage over time.',
      kind: 'states',
      unit: 'none',
      queries: [{ expr: 'max by (stage, state) (collimate_stage_state{run=~"$run"})', legend: '{{stage}} {{state}}' }],
      width: 24,
      next: 'collimate-stage',
    },
    {
      title: 'Where the time went',
      description: 'Seconds by purpose; they add up to the wall clock. Only work is goodput.',
      kind: 'timeseries',
      unit: 's',
      queries: [{ expr: 'max by (purpose) (collimate_run_purpose_seconds{run=~"$run"})', legend: '{{purpose}}' }],
      stacked: true,
      next: 'collimate-recovery',
    },
    {
      title: 'Loss',
      description: 'Loss of the last step by stage and part. A gap is a recovery; NaN ends the run (LossNaN).',
      kind: 'timeseries',
      unit: 'none',
      queries: [{ expr: 'max by (stage, task) (collimate_loss{run=~"$run"})', legend: '{{stage}} {{task}}' }],
      next: 'collimate-stage',
    },
    {
      title: 'Steps',
      description: 'Where the job of each stage is, and its last step.',
      kind: 'timeseries',
      unit: 'short',
      queries: [
        { expr: 'max by (stage) (collimate_stage_step{run=~"$run"})', legend: '{{stage}}' },
        { expr: 'max by (stage) (collimate_stage_target_step{run=~"$run"})', legend: '{{stage}} target' },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Tokens and sequences a second',
      description: 'What training consumes, repeated steps included.',
      kind: 'timeseries',
      unit: 'ops',
      queries: [
        {
          expr: 'sum by (stage) (rate(collimate_tokens_total{run=~"$run"}[$__rate_interval]))',
          legend: '{{stage}} tokens',
        },
        {
          expr: 'sum by (stage) (rate(collimate_samples_total{run=~"$run"}[$__rate_interval]))',
          legend: '{{stage}} sequences',
        },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Jobs',
      description:
        'Jobs ended, by outcome. A failed one is an incident; the run goes on from what its gang still holds.',
      kind: 'bars',
      unit: 'short',
      queries: [
        { expr: 'sum by (stage, outcome) (collimate_jobs_total{run=~"$run"})', legend: '{{stage}} {{outcome}}' },
      ],
      next: 'collimate-recovery',
    },
    {
      title: 'Search against an exact one',
      description: 'Shares of the compared prompts: best item missed by the beam, and of the exact list found.',
      kind: 'bars',
      unit: 'percentunit',
      queries: [
        {
          expr: 'sum by (stage) (collimate_search_missed_prompts_total{run=~"$run"}) / (sum by (stage) (collimate_search_compared_prompts_total{run=~"$run"}) > 0)',
          legend: '{{stage}} best missed',
        },
        {
          expr: 'sum by (stage) (collimate_search_overlap_total{run=~"$run"}) / (sum by (stage) (collimate_search_compared_prompts_total{run=~"$run"}) > 0)',
          legend: '{{stage}} list found',
        },
      ],
      next: 'collimate-codebooks',
    },
    {
      title: 'Score lost by the search',
      description:
        "Mean score by which the beam's best is below the exact best, and prompts whose exact search was given up.",
      kind: 'bars',
      unit: 'none',
      queries: [
        {
          expr: 'sum by (stage) (collimate_search_best_gap_total{run=~"$run"}) / (sum by (stage) (collimate_search_compared_prompts_total{run=~"$run"}) > 0)',
          legend: '{{stage}} mean gap',
        },
        {
          expr: 'sum by (stage) (collimate_search_uncompared_prompts_total{run=~"$run"})',
          legend: '{{stage}} given up',
        },
      ],
      next: 'collimate-codebooks',
    },
  ],
};
