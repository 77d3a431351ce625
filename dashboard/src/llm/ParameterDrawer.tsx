import { Button, Drawer, NumberInput, Stack, Textarea } from '@mantine/core'
import type { ReactNode } from 'react'
import { NO_PARAMETERS, type Parameters } from './types'

interface ParameterDrawerProps {
  open: boolean
  onClose: () => void
  value: Parameters
  onChange: (value: Parameters) => void
}

type NumberName = Exclude<keyof Parameters, 'system'>
const NUMBERS: readonly {
  name: NumberName
  label: string
  about: string
  min: number
  max: number
  step: number
  whole: boolean
}[] = [
  {
    name: 'temperature',
    label: 'Temperature',
    about: '0 is steady, higher is more varied',
    min: 0,
    max: 2,
    step: 0.1,
    whole: false,
  },
  {
    name: 'topP',
    label: 'Top p',
    about: 'Only the likeliest tokens up to this share',
    min: 0,
    max: 1,
    step: 0.05,
    whole: false,
  },
  { name: 'maxTokens', label: 'Longest answer', about: 'In tokens', min: 1, max: 1_000_000, step: 64, whole: true },
  {
    name: 'seed',
    label: 'Seed',
    about: 'The same seed gives the same answer where the model can',
    min: 0,
    max: 2 ** 31,
    step: 1,
    whole: true,
  },
]

/** System prompt and sampling parameters. An empty field leaves the choice to the model. */
export function ParameterDrawer({ open, onClose, value, onChange }: ParameterDrawerProps): ReactNode {
  return (
    <Drawer
      opened={open}
      onClose={onClose}
      position="right"
      size={400}
      title={<span className="drawer-title">Parameters</span>}
    >
      <Stack gap="md">
        <Textarea
          label="System prompt"
          description="What the model should be and do"
          placeholder="You are a helpful assistant."
          autosize
          minRows={4}
          maxRows={14}
          value={value.system}
          onChange={(event) => onChange({ ...value, system: event.currentTarget.value })}
        />
        {NUMBERS.map(({ name, label, about, min, max, step, whole }) => (
          <NumberInput
            key={name}
            label={label}
            description={about}
            placeholder="as the model likes"
            min={min}
            max={max}
            step={step}
            allowDecimal={!whole}
            value={value[name] ?? ''}
            onChange={(next) => onChange({ ...value, [name]: typeof next === 'number' ? next : null })}
          />
        ))}
        <Button variant="default" onClick={() => onChange(NO_PARAMETERS)}>
          Reset
        </Button>
      </Stack>
    </Drawer>
  )
}
