import type { components } from './schema'

type Schemas = components['schemas']

export type Me = Schemas['Me']
export type SystemInfo = Schemas['SystemInfo']
export type SystemHealth = Schemas['SystemHealth']
export type ComponentHealth = Schemas['ComponentHealth']
export type Sample = Schemas['Sample']
export type GpuDevice = Schemas['GpuDevice']
export type Run = Schemas['Run']
export type StepRun = Schemas['StepRun']
export type Progress = Schemas['Progress']
export type LogLine = Schemas['LogLine']
export type Model = Schemas['Model']
export type ModelVersion = Schemas['ModelVersion']
export type Usage = Schemas['Usage']
export type UsageRow = Schemas['UsageRow']
