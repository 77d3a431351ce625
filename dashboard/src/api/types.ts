/**
 * What the API's answers look like, as far as the dashboard reads them. Paths, parameters and request bodies come from
 * the server's OpenAPI document (`schema.d.ts`); most answers are described there only as objects.
 */

export interface Page<Item> {
  data: Item[]
  has_more?: boolean
  next_cursor?: string | null
}

export interface Me {
  kind: string
  id: string
  project_id: string | null
  role: string | null
  scopes: string[]
  user: { id: string; email: string; name: string } | null
  csrf_token: string | null
}

export interface Project {
  id: string
  name: string
}

export interface SystemInfo {
  version: string
  uptime_s: number
  mode?: string
}

export interface ComponentHealth {
  name: string
  status: string
  detail?: string | null
}

export interface SystemHealth {
  status: string
  components: ComponentHealth[]
}

export interface GpuDevice {
  index: number
  name: string | null
  utilization: number | null
  memory_used: number | null
  memory_total: number | null
  temperature: number | null
  power: number | null
}

/** The machine at one moment. Sizes in bytes, rates in bytes a second, shares in per cent; null: not known. */
export interface Sample {
  ts: number
  cpu: { percent: number; count: number | null; limit?: number | null; load: number[] | null }
  memory: { total: number; used: number; percent: number | null }
  disk: {
    total: number
    used: number
    free: number
    percent: number
    read_rate: number | null
    write_rate: number | null
  }
  network: { receive_rate: number | null; send_rate: number | null }
  process: { rss: number }
  gpu: { state: string; devices: GpuDevice[] }
  requests?: {
    per_second: number | null
    p50_ms: number | null
    p95_ms: number | null
    error_ratio: number | null
    in_flight: number | null
  } | null
}

export interface Progress {
  done: number
  total: number | null
  unit: string
}

export interface Failure {
  code: string
  message: string
  field?: string | null
  step?: string | null
}

export interface StepRun {
  key: string
  uses: string
  status: string
  attempts: number
  started_at: string | null
  finished_at: string | null
  progress?: Progress | null
  output?: unknown
  error?: Failure | null
}

export const RUN_STATUSES = ['queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled'] as const
export type RunStatus = (typeof RUN_STATUSES)[number]

export interface Run {
  id: string
  kind: string
  name: string
  version: number | null
  status: RunStatus
  progress: Progress | null
  created_at: string
  started_at: string | null
  finished_at: string | null
  error: Failure | null
  inputs?: Record<string, unknown> | null
  result?: Record<string, unknown> | null
  steps?: StepRun[]
}

export const APPROVAL_STATUSES = ['pending', 'approved', 'rejected', 'expired', 'cancelled'] as const
export type ApprovalStatus = (typeof APPROVAL_STATUSES)[number]

export interface Approval {
  id: string
  run_id: string
  step: string
  status: ApprovalStatus
  message: string
  data: unknown
  roles: string[]
  users: string[]
  four_eyes: boolean
  requested_at: string
  expires_at: string | null
  decided_at: string | null
  decided_by: string | null
  comment: string | null
}

export interface LogLine {
  id: number
  at: string
  step: string | null
  level: string
  message: string
}

export interface Alias {
  alias: string
  version: number
}

export interface Model {
  name: string
  kind: string
  task: string
  family: string
  state: string
  version: number
  versions: number[]
  licence: string
  commercial_ok: boolean
  origin: string
  own: boolean
  size: number
  memory: number
  loaded_bytes: number
  error: string | null
  note: string
  aliases: Alias[]
  created_at: string | null
}

export interface ModelVersion {
  version: number
  state: string
  aliases: string[]
}

/** A public name of a language model, and where its calls go. */
export interface Route {
  name: string
  task: string
  demo: boolean
  built_in: boolean
  deployments: { provider: string; model: string }[]
}

/** Sums of one group; the group's own name stands under the word that was grouped by. */
export interface UsageRow {
  [group: string]: string | number | null | undefined
  requests?: number
  errors?: number
  input_tokens?: number
  output_tokens?: number
  cost_usd?: number | null
  latency_ms?: number | null
}
