/** The last `capacity` rows of numbers, stored column by column as uPlot wants them. */
export class Ring {
  readonly capacity: number
  private readonly columns: Float64Array[]
  private start = 0
  private count = 0

  constructor(width: number, capacity: number) {
    this.capacity = capacity
    this.columns = Array.from({ length: width }, () => new Float64Array(capacity))
  }

  get length(): number {
    return this.count
  }

  /** Adds a row. The first number is its time; a row that is not newer than the last one is left out. */
  push(row: readonly (number | null | undefined)[]): boolean {
    const time = row[0]
    if (typeof time !== 'number' || !Number.isFinite(time)) return false
    if (this.count > 0 && time <= (this.at(0, this.count - 1) ?? 0)) return false
    const slot = (this.start + this.count) % this.capacity
    this.columns.forEach((column, index) => {
      column[slot] = row[index] ?? Number.NaN
    })
    if (this.count < this.capacity) this.count += 1
    else this.start = (this.start + 1) % this.capacity
    return true
  }

  /** One number; NaN stands for "not known". */
  at(column: number, index: number): number | undefined {
    return this.columns[column]?.[(this.start + index) % this.capacity]
  }

  /** A column from oldest to newest, gaps as null. */
  column(column: number): (number | null)[] {
    return Array.from({ length: this.count }, (_, index) => {
      const value = this.at(column, index)
      return value === undefined || Number.isNaN(value) ? null : value
    })
  }

  clear(): void {
    this.start = 0
    this.count = 0
  }
}
