import { describe, expect, test } from 'vitest'
import { Ring } from './ring'

describe('Ring', () => {
  test('keeps rows in order until it is full, then drops the oldest', () => {
    const ring = new Ring(2, 3)
    for (let time = 1; time <= 5; time += 1) ring.push([time, time * 10])
    expect(ring.length).toBe(3)
    expect(ring.column(0)).toEqual([3, 4, 5])
    expect(ring.column(1)).toEqual([30, 40, 50])
  })

  test('stays at its capacity however long the page is open', () => {
    const ring = new Ring(3, 600)
    for (let time = 0; time < 10_000; time += 1) ring.push([time, 1, 2])
    expect(ring.length).toBe(600)
    expect(ring.at(0, 0)).toBe(9400)
    expect(ring.at(0, 599)).toBe(9999)
  })

  test('leaves out what is not newer: history and live stream overlap', () => {
    const ring = new Ring(2, 5)
    expect([1, 2, 2, 1, 3].map((time) => ring.push([time, 0]))).toEqual([true, true, false, false, true])
    expect(ring.column(0)).toEqual([1, 2, 3])
  })

  test('shows unknown values as gaps, and zero as zero', () => {
    const ring = new Ring(3, 4)
    ring.push([1, null, 0])
    ring.push([2, undefined, 5])
    expect(ring.column(1)).toEqual([null, null])
    expect(ring.column(2)).toEqual([0, 5])
  })

  test.each([[[Number.NaN, 1]], [[Number.POSITIVE_INFINITY, 1]], [[null, 1]], [[]]])(
    'refuses a row without a time: %j',
    (row) => {
      expect(new Ring(2, 4).push(row)).toBe(false)
    },
  )

  test('is empty after clear', () => {
    const ring = new Ring(1, 2)
    ring.push([1])
    ring.clear()
    expect(ring.length).toBe(0)
    expect(ring.push([1])).toBe(true)
  })
})
