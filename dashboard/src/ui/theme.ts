import { createTheme, localStorageColorSchemeManager, type MantineColorsTuple } from '@mantine/core'

const violet: MantineColorsTuple = [
  '#f2f0ff',
  '#e4e0fd',
  '#c8c1f8',
  '#a99ef2',
  '#8d7fec',
  '#7769e4',
  '#6456d9',
  '#5546c4',
  '#463aa3',
  '#393083',
]
const dark: MantineColorsTuple = [
  '#e6e8ee',
  '#c6cad5',
  '#9ba2b3',
  '#7f8799',
  '#2c313d',
  '#232832',
  '#171a21',
  '#0e1015',
  '#0a0c10',
  '#06070a',
]
const gray: MantineColorsTuple = [
  '#f7f8fa',
  '#eff1f4',
  '#e4e7ec',
  '#d5d9e0',
  '#b8bec9',
  '#98a0ae',
  '#6b7383',
  '#4b5362',
  '#2f3643',
  '#1a1f2a',
]

// lockScroll writes a <style> tag, which the content security policy forbids; style.css locks the page instead.
export const theme = createTheme({
  primaryColor: 'violet',
  primaryShade: 6,
  colors: { violet, dark, gray },
  black: '#161a22',
  fontFamily: '"Inter Variable", ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace',
  defaultRadius: 'md',
  cursorType: 'pointer',
  autoContrast: true,
  luminanceThreshold: 0.35,
  headings: {
    fontWeight: '620',
    sizes: {
      h1: { fontSize: '1.375rem', lineHeight: '1.3' },
      h2: { fontSize: '0.9375rem', lineHeight: '1.4' },
      h3: { fontSize: '0.875rem', lineHeight: '1.4' },
    },
  },
  components: {
    Button: { defaultProps: { size: 'sm' } },
    Tooltip: { defaultProps: { openDelay: 350, withArrow: true } },
    Modal: {
      defaultProps: {
        centered: true,
        lockScroll: false,
        overlayProps: { backgroundOpacity: 0.45, blur: 2 },
        closeButtonProps: { 'aria-label': 'Close' },
      },
    },
    Drawer: {
      defaultProps: {
        lockScroll: false,
        overlayProps: { backgroundOpacity: 0.4 },
        closeButtonProps: { 'aria-label': 'Close' },
      },
    },
    ActionIcon: { defaultProps: { variant: 'subtle', color: 'gray' } },
  },
})

/** Mantine would pause transitions by a `<style>` tag while the colours change; the policy forbids that. */
export const KEEP = { keepTransitions: true } as const

export const schemeManager = localStorageColorSchemeManager({ key: 'nexus-color-scheme' })
