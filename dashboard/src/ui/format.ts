const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const

/** Bytes for people, 1000-based as disks and networks are sold: 1234567 -> "1.2 MB". */
export function bytes(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return '–'
  let size = Math.abs(value)
  let unit = 0
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000
    unit += 1
  }
  const digits = unit === 0 || size >= 99.5 ? 0 : 1
  return `${value < 0 ? '-' : ''}${size.toFixed(digits)} ${UNITS[unit]}`
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** Bytes of memory, 1024-based as memory is sold: 34359738368 -> "32 GiB". */
export function memory(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return '–'
  let size = value
  let unit = 0
  while (size >= 1023.5 && unit < BINARY.length - 1) {
    size /= 1024
    unit += 1
  }
  return `${size.toFixed(unit === 0 || size >= 99.5 ? 0 : 1).replace(/\.0$/, '')} ${BINARY[unit]}`
}

/** Seconds for people: "320 ms", "4.2 s", "3 min 20 s", "2 h 5 min", "4 d 2 h". */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds) || seconds < 0) return '–'
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 59.95) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`
  const whole = Math.round(seconds)
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string): string =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`
  if (whole < 3600) return pair(Math.floor(whole / 60), 'min', whole % 60, 's')
  if (whole < 86_400) return pair(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'min')
  return pair(Math.floor(whole / 86_400), 'd', Math.floor((whole % 86_400) / 3600), 'h')
}

/** Milliseconds for people. */
export function milliseconds(value: number | null | undefined): string {
  return value == null ? '–' : duration(value / 1000)
}

/** A count: 1 234, or 12.3 k and 4.5 M where it must be short. */
export function count(value: number | null | undefined, short = false): string {
  if (value == null || !Number.isFinite(value)) return '–'
  if (!short || Math.abs(value) < 10_000) return Math.round(value).toLocaleString('en-US')
  const [size, unit] = Math.abs(value) >= 999_950 ? [value / 1e6, 'M'] : [value / 1e3, 'k']
  return `${size.toFixed(1).replace(/\.0$/, '')} ${unit}`
}

/** A share between 0 and 1 as per cent. */
export function share(ratio: number | null | undefined): string {
  if (ratio == null || !Number.isFinite(ratio)) return '–'
  const percent = ratio * 100
  return `${percent !== 0 && percent < 9.95 ? percent.toFixed(1) : Math.round(percent)} %`
}

/** US dollars, with more digits where they are cents of cents. */
export function money(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  const digits = size === 0 || size >= 1 ? 2 : size >= 0.01 ? 3 : 5
  return `$${value.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: digits })}`
}

/** How long ago: "just now", "5 min ago", "3 h ago", "2 d ago", then the date. */
export function ago(time: string | null | undefined, now: number): string {
  const then = time ? Date.parse(time) : Number.NaN
  if (Number.isNaN(then)) return '–'
  const seconds = (now - then) / 1000
  if (seconds < 10) return 'just now'
  if (seconds < 60) return `${Math.floor(seconds)} s ago`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`
  if (seconds < 7 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`
  return new Date(then).toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })
}

/** Seconds between two RFC 3339 times; an open end is `now`. */
export function between(from: string | null | undefined, to: string | null | undefined, now: number): number | null {
  if (!from) return null
  return Math.max(0, ((to ? Date.parse(to) : now) - Date.parse(from)) / 1000)
}

/** "model.pull" or "vision_batch" as words. */
export function words(name: string): string {
  const plain = name.replace(/[._-]+/g, ' ').trim()
  const short = plain.replace(/\b(llm|ocr|api|gpu|cpu)\b/g, (each) => each.toUpperCase())
  return short.charAt(0).toUpperCase() + short.slice(1)
}
