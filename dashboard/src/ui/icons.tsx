import type { ReactNode, SVGProps } from 'react'

export type IconProps = SVGProps<SVGSVGElement> & { size?: number }
export type Icon = (props: IconProps) => ReactNode

function icon(...paths: string[]): Icon {
  return function Drawn({ size = 18, ...rest }: IconProps): ReactNode {
    return (
      <svg
        width={size}
        height={size}
        viewBox="0 0 24 24"
        fill="none"
        stroke="currentColor"
        strokeWidth={1.75}
        strokeLinecap="round"
        strokeLinejoin="round"
        aria-hidden
        focusable="false"
        {...rest}
      >
        {paths.map((d) => (
          <path key={d} d={d} />
        ))}
      </svg>
    )
  }
}

export const IconOverview = icon('M4 13a8 8 0 1 1 16 0', 'M12 13l4-4', 'M4 17h16')
export const IconChat = icon('M20 12a7.5 7.5 0 0 1-11 6.6L4 20l1.4-4.6A7.5 7.5 0 1 1 20 12z', 'M9 11h6', 'M9 14h3.5')
export const IconModels = icon('M12 3l8 4.5v9L12 21l-8-4.5v-9z', 'M12 12l8-4.5', 'M12 12v9', 'M12 12L4 7.5')
export const IconRuns = icon('M5 6h14', 'M5 12h8', 'M5 18h5', 'M15.5 14.5v5l4-2.5z')
export const IconApprovals = icon('M12 4a8 8 0 1 1 0 16 8 8 0 0 1 0-16z', 'M8.5 12.3l2.5 2.5 4.7-5')
export const IconSearch = icon('M11 5a6 6 0 1 1 0 12 6 6 0 0 1 0-12z', 'M20 20l-4.6-4.6')
export const IconSun = icon(
  'M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8z',
  'M12 3v1.5M12 19.5V21M3 12h1.5M19.5 12H21M5.6 5.6l1.1 1.1M17.3 17.3l1.1 1.1M5.6 18.4l1.1-1.1M17.3 6.7l1.1-1.1',
)
export const IconMoon = icon('M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z')
export const IconMonitor = icon('M4 5h16v11H4z', 'M9 20h6', 'M12 16v4')
export const IconSend = icon('M12 19V5', 'M6 11l6-6 6 6')
export const IconStop = icon('M7 7h10v10H7z')
export const IconRetry = icon('M19 12a7 7 0 1 1-2-4.9', 'M19 4v4h-4')
export const IconEdit = icon('M5 19l1-4L16.5 4.5a2.1 2.1 0 0 1 3 3L9 18z', 'M14 7l3 3')
export const IconCopy = icon('M9 9h10v10H9z', 'M15 9V5H5v10h4')
export const IconCheck = icon('M5 12.5l4.5 4.5L19 7.5')
export const IconClose = icon('M6 6l12 12', 'M18 6L6 18')
export const IconAlert = icon('M12 4l9 16H3z', 'M12 10v4', 'M12 17h.01')
export const IconInfo = icon('M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17z', 'M12 11v5', 'M12 8h.01')
export const IconDownload = icon('M12 4v11', 'M7 11l5 5 5-5', 'M5 20h14')
export const IconPower = icon('M12 4v8', 'M7.5 7a7 7 0 1 0 9 0')
export const IconSettings = icon(
  'M4 7h9M17 7h3M4 17h3M11 17h9',
  'M15 5a2 2 0 1 1 0 4 2 2 0 0 1 0-4z',
  'M9 15a2 2 0 1 1 0 4 2 2 0 0 1 0-4z',
)
export const IconCode = icon('M8.5 7L4 12l4.5 5', 'M15.5 7l4.5 5-4.5 5')
export const IconPlus = icon('M12 5v14', 'M5 12h14')
export const IconChevron = icon('M9 6l6 6-6 6')
export const IconBack = icon('M15 6l-6 6 6 6')
export const IconUser = icon('M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8z', 'M4.5 20a7.5 7.5 0 0 1 15 0')
export const IconLogout = icon('M14 5H6v14h8', 'M11 12h9', 'M17 8.5l3.5 3.5-3.5 3.5')
export const IconCpu = icon('M7 7h10v10H7z', 'M10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4')
export const IconMemory = icon('M4 7h16v9H4z', 'M8 7v4M12 7v4M16 7v4', 'M7 16v3M12 16v3M17 16v3')
export const IconDisk = icon('M5 5h14l2 9v5H3v-5z', 'M3 14h18', 'M17 16.7h.01')
export const IconGpu = icon('M3 6h2v13', 'M5 8h16v8H5', 'M14 10a2 2 0 1 1 0 4 2 2 0 0 1 0-4z', 'M8.5 10v4')
export const IconKey = icon('M8.5 11a4 4 0 1 1 0 8 4 4 0 0 1 0-8z', 'M11.5 12.5L20 4', 'M16 8l3 3')
