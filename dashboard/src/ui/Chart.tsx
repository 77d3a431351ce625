import { useComputedColorScheme } from '@mantine/core'
import { useEffect, useRef, type ReactNode } from 'react'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'

export interface Series {
  label: string
  /** A CSS variable such as `--series-1`. */
  color: string
  fill?: boolean
}

export interface ChartProps {
  /** What the chart shows, for people who do not see it. */
  label: string
  series: readonly Series[]
  /** Calls `draw` with new columns (first the times in seconds) until the returned function is called. */
  subscribe: (draw: (columns: uPlot.AlignedData) => void) => () => void
  format: (value: number) => string
  height?: number
  /** Fixed upper end of the y axis; without it the axis follows the data. */
  max?: number
  /** The seconds that the x axis spans; without it, all data. */
  span?: number
}

const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

function options(props: ChartProps, width: number, tip: HTMLDivElement): uPlot.Options {
  const { series, format, height = 150, max, span } = props
  const soft = css('--ink-soft')
  const font = '11px "Inter Variable", system-ui, sans-serif'
  const grid = { stroke: css('--line'), width: 1 }
  const show = (plot: uPlot): void => {
    const { idx, left } = plot.cursor
    if (idx == null || left == null || left < 0) {
      tip.style.opacity = '0'
      return
    }
    const time = plot.data[0][idx]
    if (time == null) return
    const rows = series.map((each, index) => {
      const value = plot.data[index + 1]?.[idx]
      return `${each.label}  ${value == null ? '–' : format(value)}`
    })
    tip.textContent = [new Date(time * 1000).toLocaleTimeString('en-GB'), ...rows].join('\n')
    tip.style.opacity = '1'
    const room = plot.over.clientWidth
    tip.style.transform = `translate(${left > room / 2 ? plot.over.offsetLeft + left - tip.offsetWidth - 12 : plot.over.offsetLeft + left + 12}px, 6px)`
  }
  return {
    width,
    height,
    padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      x: { range: (_, from, to) => (span ? [to - span, to] : [from, to]) },
      y: { range: (_, __, to) => [0, max ?? Math.max(to * 1.15, 1e-6)] },
    },
    axes: [
      {
        stroke: soft,
        font,
        grid: { show: false },
        ticks: { show: false },
        size: 24,
        gap: 6,
        space: 90,
        values: (_, splits) => splits.map((time) => clockOf(time, span)),
      },
      {
        stroke: soft,
        font,
        grid,
        ticks: { show: false },
        size: (_, labels) => Math.max(40, ...(labels ?? []).map((each) => each.length * 6.4 + 16)),
        gap: 8,
        space: 34,
        values: (_, splits) => splits.map(format),
      },
    ],
    series: [
      {},
      ...series.map((each) => ({
        label: each.label,
        stroke: css(each.color),
        width: 1.75,
        points: { show: false },
        ...(each.fill ? { fill: (plot: uPlot) => shade(plot, css(each.color)) } : {}),
      })),
    ],
    hooks: { setCursor: [show] },
  }
}

function clockOf(time: number, span: number | undefined): string {
  const date = new Date(time * 1000)
  return date.toLocaleTimeString('en-GB', {
    hour: '2-digit',
    minute: '2-digit',
    ...(span && span < 300 ? { second: '2-digit' } : {}),
  })
}

function shade(plot: uPlot, color: string): CanvasGradient | string {
  const { top, height } = plot.bbox
  if (!Number.isFinite(top) || height <= 0) return 'transparent'
  const gradient = plot.ctx.createLinearGradient(0, top, 0, top + height)
  gradient.addColorStop(0, `${color}3d`)
  gradient.addColorStop(1, `${color}05`)
  return gradient
}

/** A line chart over time that is fed from outside React, so that a new point costs no render. */
export function Chart(props: ChartProps): ReactNode {
  const { label, subscribe, height = 150 } = props
  const scheme = useComputedColorScheme('light')
  const place = useRef<HTMLDivElement>(null)
  const tip = useRef<HTMLDivElement>(null)
  const latest = useRef(props)
  latest.current = props
  useEffect(() => {
    const element = place.current
    if (!element || !tip.current) return undefined
    const empty: uPlot.AlignedData = [[], ...latest.current.series.map(() => [])]
    const plot = new uPlot(options(latest.current, element.clientWidth || 300, tip.current), empty, element)
    const resize = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height }))
    resize.observe(element)
    const stop = subscribe((columns) => plot.setData(columns))
    return () => {
      stop()
      resize.disconnect()
      plot.destroy()
    }
  }, [subscribe, height, scheme])
  return (
    <div className="chart" role="img" aria-label={label} style={{ position: 'relative', height }}>
      <div ref={place} />
      <div ref={tip} className="tip" aria-hidden />
    </div>
  )
}
