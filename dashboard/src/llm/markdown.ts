import DOMPurify from 'dompurify'
import { marked } from './blocks'

// Text of a model is foreign text: no styles, no forms, no frames, and no pictures, since the address of a picture
// can carry words of the conversation out of the house.
const RULES = {
  ALLOWED_TAGS: [
    'p',
    'br',
    'hr',
    'h1',
    'h2',
    'h3',
    'h4',
    'h5',
    'h6',
    'strong',
    'b',
    'em',
    'i',
    'del',
    's',
    'code',
    'pre',
    'blockquote',
    'ul',
    'ol',
    'li',
    'a',
    'table',
    'thead',
    'tbody',
    'tr',
    'th',
    'td',
    'sup',
    'sub',
    'span',
    'input',
  ],
  ALLOWED_ATTR: ['href', 'title', 'align', 'start', 'type', 'checked', 'disabled', 'class'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
}

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.nodeName === 'A') {
    node.setAttribute('target', '_blank')
    node.setAttribute('rel', 'noopener noreferrer nofollow')
  }
  if (node.nodeName === 'INPUT' && node.getAttribute('type') !== 'checkbox') node.remove()
  if (node.nodeName === 'INPUT') node.setAttribute('disabled', '')
  const marks = (node.getAttribute('class') ?? '').split(' ').filter((name) => name.startsWith('language-'))
  if (marks.length > 0) node.setAttribute('class', marks.join(' '))
  else node.removeAttribute('class')
})

/** Markdown as HTML that is safe to put into the page. */
export function safeHtml(markdown: string): string {
  return DOMPurify.sanitize(marked.parse(markdown) as string, RULES)
}
