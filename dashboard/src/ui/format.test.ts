import { describe, expect, test } from 'vitest'
import { ago, between, bytes, count, duration, memory, milliseconds, money, share, words } from './format'

const NOW = Date.parse('2026-05-04T12:00:00Z')

describe('formatters', () => {
  test.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [999_499, '999 kB'],
    [999_501, '1.0 MB'],
    [1_234_567, '1.2 MB'],
    [98_362_432, '98.4 MB'],
    [-2500, '-2.5 kB'],
    [8e15, '8.0 PB'],
    [null, '–'],
    [Number.NaN, '–'],
  ])('bytes(%s) is %s', (value, expected) => expect(bytes(value)).toBe(expected))

  test.each([
    [34_359_738_368, '32 GiB'],
    [16_535_624_089, '15.4 GiB'],
    [512, '512 B'],
    [1_048_576, '1 MiB'],
    [undefined, '–'],
  ])('memory(%s) is %s', (value, expected) => expect(memory(value)).toBe(expected))

  test.each([
    [0, '0 ms'],
    [0.3204, '320 ms'],
    [0.9996, '1.0 s'],
    [4.21, '4.2 s'],
    [59.96, '1 min'],
    [200, '3 min 20 s'],
    [3600, '1 h'],
    [7500, '2 h 5 min'],
    [180_000, '2 d 2 h'],
    [-1, '–'],
    [null, '–'],
  ])('duration(%s) is %s', (value, expected) => expect(duration(value)).toBe(expected))

  test.each([
    [1234, false, '1,234'],
    [12_345, true, '12.3 k'],
    [1_000_000, true, '1 M'],
    [999_960, true, '1 M'],
    [9999, true, '9,999'],
    [null, true, '–'],
  ])('count(%s, %s) is %s', (value, short, expected) => expect(count(value, short)).toBe(expected))

  test.each([
    [0, '$0.00'],
    [12.5, '$12.50'],
    [0.0421, '$0.042'],
    [0.00012, '$0.00012'],
    [1234.5, '$1,234.50'],
  ])('money(%s) is %s', (value, expected) => expect(money(value)).toBe(expected))

  test.each([
    [0, '0 %'],
    [0.004, '0.4 %'],
    [0.5, '50 %'],
    [1, '100 %'],
    [null, '–'],
  ])('share(%s) is %s', (value, expected) => expect(share(value)).toBe(expected))

  test.each([
    ['2026-05-04T11:59:55Z', 'just now'],
    ['2026-05-04T11:59:10Z', '50 s ago'],
    ['2026-05-04T11:15:00Z', '45 min ago'],
    ['2026-05-04T03:00:00Z', '9 h ago'],
    ['2026-05-02T12:00:00Z', '2 d ago'],
    ['2026-03-01T12:00:00Z', '1 Mar 2026'],
    ['nonsense', '–'],
    [null, '–'],
  ])('ago(%s) is %s', (time, expected) => expect(ago(time, NOW)).toBe(expected))

  test('between uses now for an open end and never goes below zero', () => {
    expect(between('2026-05-04T11:59:00Z', null, NOW)).toBe(60)
    expect(between('2026-05-04T11:59:00Z', '2026-05-04T11:59:30Z', NOW)).toBe(30)
    expect(between('2026-05-04T12:00:30Z', null, NOW)).toBe(0)
    expect(between(null, null, NOW)).toBeNull()
  })

  test('milliseconds and words', () => {
    expect(milliseconds(1830)).toBe('1.8 s')
    expect(milliseconds(null)).toBe('–')
    expect(words('vision.ocr')).toBe('Vision OCR')
    expect(words('model_pull')).toBe('Model pull')
    expect(words('llm')).toBe('LLM')
  })
})
