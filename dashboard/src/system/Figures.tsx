import type { ReactNode } from 'react'
import type { Sample } from '../api/types'
import { bytes, memory } from '../ui/format'
import { IconCpu, IconDisk, IconGpu, IconMemory, type Icon } from '../ui/icons'
import { useSample } from './samples'

interface FigureProps {
  name: string
  icon: Icon
  percent?: number | null | undefined
  value?: string
  note: string
}

function Figure({ name, icon: Drawn, percent, value, note }: FigureProps): ReactNode {
  const tone = percent == null ? undefined : percent >= 95 ? 'bad' : percent >= 85 ? 'warn' : undefined
  return (
    <section className="panel figure quarter" aria-label={name}>
      <div className="figure-name">
        <Drawn size={16} /> {name}
      </div>
      <div className="figure-value" data-testid={`figure-${name.toLowerCase()}`}>
        {percent == null ? (
          (value ?? '–')
        ) : (
          <>
            {percent.toFixed(percent < 99.95 ? 1 : 0)} <small>%</small>
          </>
        )}
      </div>
      <div className="figure-note" title={note}>
        {note}
      </div>
      {percent == null ? (
        <div className="meter" aria-hidden />
      ) : (
        <div
          className="meter"
          data-tone={tone}
          role="meter"
          aria-label={name}
          aria-valuenow={Math.round(percent)}
          aria-valuemin={0}
          aria-valuemax={100}
        >
          <div style={{ width: `${Math.min(100, percent)}%` }} />
        </div>
      )}
    </section>
  )
}

const NO_GPU: Record<string, string> = {
  no_driver: 'No NVIDIA driver on this machine',
  no_device: 'No NVIDIA device on this machine',
  no_permission: 'The GPU may not be read',
  error: 'The GPU cannot be read',
}

function GpuFigure({ gpu }: { gpu: Sample['gpu'] | undefined }): ReactNode {
  const devices = gpu?.devices ?? []
  const device = devices[0]
  if (!gpu || gpu.state !== 'ok' || !device)
    return (
      <Figure
        name="GPU"
        icon={IconGpu}
        value={gpu ? 'None' : '–'}
        note={gpu ? (NO_GPU[gpu.state] ?? 'Models run on the CPU') : ''}
      />
    )
  const heat = device.temperature == null ? '' : `, ${Math.round(device.temperature)} °C`
  const filled = device.memory_total
    ? `${memory(device.memory_used)} of ${memory(device.memory_total)}${heat}`
    : heat.slice(2)
  const more = devices.length > 1 ? `${devices.length} × ` : ''
  return (
    <Figure
      name="GPU"
      icon={IconGpu}
      percent={device.utilization}
      value="Active"
      note={`${more}${device.name ?? 'GPU'}: ${filled}`}
    />
  )
}

/** CPU, memory, disk and GPU as they are now. */
export function Figures(): ReactNode {
  const now = useSample()
  const cores = now?.cpu.limit ?? now?.cpu.count ?? 0
  return (
    <>
      <Figure
        name="CPU"
        icon={IconCpu}
        percent={now?.cpu.percent}
        note={now ? `${cores} ${cores === 1 ? 'core' : 'cores'}, load ${now.cpu.load?.[0]?.toFixed(2) ?? '–'}` : ''}
      />
      <Figure
        name="Memory"
        icon={IconMemory}
        percent={now?.memory.percent}
        note={now ? `${memory(now.memory.used)} of ${memory(now.memory.total)}, NEXUS ${memory(now.process.rss)}` : ''}
      />
      <Figure
        name="Disk"
        icon={IconDisk}
        percent={now?.disk.percent}
        note={now ? `${bytes(now.disk.free)} free of ${bytes(now.disk.total)}` : ''}
      />
      <GpuFigure gpu={now?.gpu} />
    </>
  )
}
