/** Whether all letters of `wanted` occur in `text` in that order; words that start with it come first. */
export function fits(text: string, wanted: string): number {
  const hay = text.toLowerCase()
  const needle = wanted.toLowerCase().trim()
  if (needle === '') return 1
  const at = hay.indexOf(needle)
  if (at === 0) return 4
  if (at > 0) return /\W/.test(hay[at - 1] ?? '') ? 3 : 2
  let from = 0
  for (const letter of needle) {
    from = hay.indexOf(letter, from) + 1
    if (from === 0) return 0
  }
  return 1
}
