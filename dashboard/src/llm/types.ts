export type Role = 'user' | 'assistant'

/** What one answer took. */
export interface Stats {
  /** Milliseconds until the first token. */
  firstToken: number | null
  /** Milliseconds in all. */
  total: number
  inputTokens: number | null
  outputTokens: number | null
  /** Output tokens a second after the first one. */
  speed: number | null
  /** Whether the tokens were counted here, because the model did not say. */
  estimated: boolean
}

export interface Message {
  id: string
  role: Role
  content: string
  reasoning?: string
  model?: string
  state: 'done' | 'streaming' | 'stopped' | 'failed'
  error?: { message: string; requestId?: string | undefined }
  stats?: Stats
}

export interface Parameters {
  system: string
  temperature: number | null
  topP: number | null
  maxTokens: number | null
  seed: number | null
}

export const NO_PARAMETERS: Parameters = { system: '', temperature: null, topP: null, maxTokens: null, seed: null }
