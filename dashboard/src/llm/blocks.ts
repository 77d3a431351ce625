import { Marked } from 'marked'

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

/**
 * The one Markdown reader: GitHub's dialect, with line breaks as they are written. HTML in the text is shown as text,
 * but for the line break, which has no Markdown in a table.
 */
export const marked = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: { html: ({ text }) => (/^<br\s*\/?>$/i.test(text.trim()) ? '<br>' : escaped(text)) },
})

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
    .map((token) =>
      token.type === 'code'
        ? {
            kind: 'code',
            raw: token.raw,
            code: String(token['text']),
            language: String(token['lang'] ?? '').split(/\s/)[0] ?? '',
          }
        : { kind: 'text', raw: token.raw },
    )
}
