import { expect, test } from 'vitest'
import { endsIn, whoMay } from './words'

test('says how long a question is open', () => {
  const now = Date.parse('2026-11-26T12:00:00Z')
  expect(endsIn('2026-11-26T12:03:20Z', now)).toBe('3 min 20 s left')
  expect(endsIn('2026-11-26T12:00:00Z', now)).toBe('over')
})

test('says who may answer', () => {
  expect(whoMay({ roles: [], users: [] })).toBe('for anybody who may approve')
  expect(whoMay({ roles: ['owner'], users: ['anna@example.com'] })).toBe('for any owner, anna@example.com')
})
