import { Marked } from 'marked'

/** The one Markdown reader: GitHub's dialect, with line breaks as they are written. */
export const marked = new Marked({ gfm: true, breaks: true, async: false })

export interface Block {
  kind: 'text' | 'code'
  raw: string
  /** The text of a code block, and the language its fence names. */
  code?: string
  language?: string
}

/** Cuts Markdown into its top-level blocks, so that while text grows only the last one is drawn anew. */
export function blocksOf(markdown: string): Block[] {
  return marked
    .lexer(markdown)
    .filter((token) => token.type !== 'space')
    .map((token) => (token.type === 'code' ? { kind: 'code', raw: token.raw, code: String(token['text']), language: String(token['lang'] ?? '').split(/\s/)[0] ?? '' } : { kind: 'text', raw: token.raw }))
}
