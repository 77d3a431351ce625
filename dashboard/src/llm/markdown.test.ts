import { expect, test } from 'vitest'
import { blocksOf, marked } from './blocks'

test('cuts text into blocks and knows code', () => {
  const blocks = blocksOf('Hello **you**\n\n```python extra\nprint(1)\n```\n\n- a\n- b\n')
  expect(blocks.map(({ kind, code, language }) => [kind, code, language])).toEqual([
    ['text', undefined, undefined],
    ['code', 'print(1)', 'python'],
    ['text', undefined, undefined],
  ])
})

test('growing text leaves finished blocks as they were', () => {
  const text = 'One.\n\nTwo.\n\n```js\nlet a\n```\n\nThree is lo'
  const before = blocksOf(text)
  const after = blocksOf(`${text}ng.`)
  expect(after.slice(0, 3)).toEqual(before.slice(0, 3))
  expect(after.at(-1)?.raw).toBe('Three is long.')
})

test('an open fence is code from its first line on', () => {
  expect(blocksOf('```\nlet a = 1')[0]).toMatchObject({ kind: 'code', code: 'let a = 1', language: '' })
})

test.each([
  ['<img src=x onerror=alert(1)>', '&lt;img src=x onerror=alert(1)&gt;'],
  ['a <script>b</script>', '<p>a &lt;script&gt;b&lt;/script&gt;</p>\n'],
  ['one<br>two', '<p>one<br>two</p>\n'],
])('HTML in %s is text', (text, expected) => expect(marked.parse(text)).toBe(expected))
