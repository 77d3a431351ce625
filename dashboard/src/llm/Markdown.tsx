import { memo, useMemo, type ReactNode } from 'react'
import { CopyButton } from '../ui/CopyButton'
import { blocksOf, type Block } from './blocks'
import { safeHtml } from './markdown'

const Text = memo(function Text({ raw }: { raw: string }): ReactNode {
  const html = useMemo(() => safeHtml(raw), [raw])
  return <div dangerouslySetInnerHTML={{ __html: html }} />
})

const Code = memo(function Code({ code, language }: { code: string; language: string }): ReactNode {
  return (
    <figure className="code-block">
      <figcaption>
        <span>{language || 'text'}</span>
        <CopyButton text={code} label="Copy the code" size={26} />
      </figcaption>
      <pre tabIndex={0} aria-label={`Code, ${language || 'text'}`}>
        <code>{code}</code>
      </pre>
    </figure>
  )
})

const draw = (block: Block, index: number): ReactNode =>
  block.kind === 'code' ? (
    <Code key={index} code={block.code ?? ''} language={block.language ?? ''} />
  ) : (
    <Text key={index} raw={block.raw} />
  )

/** Markdown from a model, drawn block by block. */
export const Markdown = memo(function Markdown({ text }: { text: string }): ReactNode {
  const blocks = useMemo(() => blocksOf(text), [text])
  return <div className="prose">{blocks.map(draw)}</div>
})
