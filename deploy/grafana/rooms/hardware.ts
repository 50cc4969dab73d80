/** What do the machines still have to give? */
import type { Room } from '../room.js';

export const hardware: Room = {
  uid: 'collimate-hardware',
  title: 'Collimate / Hardware',
  description: 'Processors and memory that workers use, and room in the store.',
  variables: ['worker'],
  panels: [
    {
      title: "Utilisation of a worker's threads",
      description:
        'Processor time used, of the threads that the worker computes with. Low while it trains: it waits for others or for data.',
      kind: 'timeseries',
      unit: 'percentunit',
      queries: [
        {
          expr: 'sum by (worker) (rate(collimate_process_cpu_seconds_total{worker=~"$worker"}[$__rate_interval])) / sum by (worker) (collimate_worker_threads{worker=~"$worker"})',
          legend: '{{worker}}',
        },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Memory of a worker',
      description:
        "Resident memory: model, state, gradients, activations. Near the machine's limit: out_of_memory comes next.",
      kind: 'timeseries',
      unit: 'bytes',
      queries: [
        {
          expr: 'max by (worker) (collimate_process_resident_memory_bytes{worker=~"$worker"})',
          legend: '{{worker}}',
        },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Memory of a device in use',
      description: 'Share of the memory of the device that a worker computes on. 0 where all compute on processors.',
      kind: 'timeseries',
      unit: 'percentunit',
      queries: [
        {
          expr: 'max by (worker) (collimate_worker_device_used_bytes{worker=~"$worker"} / collimate_worker_device_size_bytes{worker=~"$worker"}) or vector(0)',
          legend: '{{worker}}',
        },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Utilisation of a device',
      description:
        'Share of the time in which a kernel ran. Low while its worker trains: it waits for data, for others or for the host. 0 where all compute on processors.',
      kind: 'timeseries',
      unit: 'percentunit',
      queries: [
        {
          expr: 'max by (worker) (collimate_worker_device_utilization_ratio{worker=~"$worker"}) or vector(0)',
          legend: '{{worker}}',
        },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Busy',
      description: 'Whether a worker holds a job.',
      kind: 'grid',
      unit: 'none',
      queries: [{ expr: 'max by (worker) (collimate_worker_busy{worker=~"$worker"})', legend: '{{worker}}' }],
      next: 'collimate-fleet',
    },
    {
      title: 'Up for',
      description: 'Time since each worker process started; a saw-tooth is a process that keeps dying.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'time() - max by (worker) (collimate_process_start_timestamp_seconds{worker=~"$worker"})',
          legend: '{{worker}}',
        },
      ],
      next: 'collimate-fleet',
    },
    {
      title: 'Room in the store',
      description:
        "Share of the artifact store's file system that is free: see StoreFull in docs/operations.md. A bucket shows none.",
      kind: 'timeseries',
      unit: 'percentunit',
      queries: [{ expr: 'max(collimate_store_available_bytes) / max(collimate_store_size_bytes)', legend: 'free' }],
      next: 'collimate-fleet',
    },
    {
      title: 'Memory of the other processes',
      description: 'Resident memory of controller and recommender.',
      kind: 'timeseries',
      unit: 'bytes',
      queries: [{ expr: 'max by (job) (collimate_process_resident_memory_bytes{worker=""})', legend: '{{job}}' }],
      next: 'collimate-temporal',
    },
  ],
};
